"""Each flow runs on its own; the pipeline chains them and leaves an artifact."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import LogSort

from flows.embed import embed
from flows.ingest import ingest
from flows.register import register
from flows.settings import HomeSettings, RunSettings
from flows.train import train
from flows.weekly import maintain_lake
from storage.vectors.feature_file import FeatureFile
from tests.counting import Tally

Run = Callable[..., dict[str, Any]]


def test_each_flow_runs_on_its_own(prefect_api: str, tally: Tally, photos: Path, home: Path) -> None:
    assert prefect_api
    settings = RunSettings(source=photos, home=home)
    assert ingest(settings).new == 60
    assert embed(settings).computed == 60
    trained = train(settings)
    registered = register(settings)
    assert trained.new
    assert (registered.version, registered.alias) == (1, "champion")
    assert tally.images == 60


def test_a_runs_log_has_each_shards_pace_and_the_warnings_of_threads(
    prefect_api: str, tally: Tally, photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prefect_api
    assert not tally.images
    write = FeatureFile.write

    def warn(*args: Any) -> None:  # noqa: ANN401 - any arguments
        logging.getLogger("tasks.embed.pipeline").warning("from %s", threading.current_thread().name)
        write(*args)

    monkeypatch.setattr(FeatureFile, "write", warn)
    settings = RunSettings(source=photos, home=home)
    ingest(settings)
    embed(settings)
    for handler in logging.getLogger("tasks").handlers:
        handler.flush()
    with get_client(sync_client=True) as client:
        newest = client.read_logs(sort=LogSort.TIMESTAMP_DESC)
        for begins in ("from writer", "shard 1: 60 images · "):
            logged = [log for log in newest if log.message.startswith(begins)]
            names = {client.read_flow_run(log.flow_run_id).name for log in logged if log.flow_run_id}
            assert f"embed {photos}" in names


@pytest.mark.usefixtures("prefect_api")
def test_a_run_leaves_an_artifact_that_describes_it(run: Run) -> None:
    run(name="An Artifact")
    with get_client(sync_client=True) as client:
        artifact = client.read_latest_artifacts()
    texts = [str(each.data) for each in artifact if each.key == "frostline-an-artifact"]
    assert len(texts) == 1
    for words in ("embedded 60 · reused 0 · failed 0", "60 seen · 60 new", "champion", "mlflow.db", "accuracy"):
        assert words in texts[0]


@pytest.mark.usefixtures("prefect_api")
def test_maintenance_runs_as_a_flow_and_leaves_an_artifact(run: Run, home: Path) -> None:
    run(embed={"shard": 30})
    assert maintain_lake(HomeSettings(home=home)).compacted == 2
    with get_client(sync_client=True) as client:
        texts = [str(each.data) for each in client.read_latest_artifacts() if each.key == "frostline-maintenance"]
    assert len(texts) == 1
    assert "compacted 2 files of vectors merged into fewer" in texts[0]


def test_a_report_has_its_documented_keys(first_report: dict[str, Any]) -> None:
    report = first_report
    assert set(report["images"]) == {"seen", "new", "unchanged", "gone"}
    assert set(report["features"]) == {"computed", "reused", "failed"}
    assert {"accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "log_loss"} <= set(report["metrics"])
    assert {"name", "version", "alias"} <= set(report["model"])
    assert isinstance(report["snapshot"], int)
    assert report["seconds"]["total"] > 0


def test_the_form_of_a_run_shows_help_for_every_setting() -> None:
    from flows.pipeline import pipeline

    assert isinstance(pipeline, Flow)
    models = pipeline.parameters.definitions or {}
    fields = [field for model in models.values() for field in model.get("properties", {}).values()]
    assert len(fields) > 25
    assert all(field.get("description") for field in fields if "$ref" not in field)
    assert all(model.get("description") for model in models.values())

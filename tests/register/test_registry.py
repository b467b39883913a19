"""The registry: down, up again, or interrupted half way; and no telemetry."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from flows.register import write_page
from flows.reports.run_report import model_url
from storage.errors import RegistryError, RegistryUnreachableError
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import ModelName
from storage.tables.canaries import Canaries, Probe, save_canaries
from storage.tables.trainings import head_path
from storage.vectors.feature_file import Matrix
from tasks.encoder.pack import open_images
from tasks.encoder.pixels.budget import Budget
from tasks.register.register import RegisteredVersion, register_head
from tasks.register.registry.client import open_registry
from tasks.register.settings import RegisterSettings, configure_mlflow, resolve_tracking_uri
from tests.counting import Tally
from tests.servers import environment, free_port, mlflow_server

Run = Callable[..., dict[str, Any]]

MAX_SECONDS = 40
TELEMETRY = """
from tasks.register.registry.client import open_registry
from tasks.register.registry.client import open_registry
from tasks.register.settings import RegisterSettings
from storage.locations.home import Home
from pathlib import Path
with open_registry(Home(Path({home!r})), RegisterSettings()):
    from mlflow.telemetry import get_telemetry_client
    from mlflow.telemetry.utils import is_telemetry_disabled
    print(is_telemetry_disabled(), get_telemetry_client())
"""


def test_a_registry_that_is_down_is_one_line_and_the_head_is_kept_for_it(
    run: Run, tally: Tally, home: Path, registry_template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    registry = {"tracking_uri": f"http://127.0.0.1:{port}"}
    start = time.monotonic()
    with pytest.raises(RegistryUnreachableError) as error:
        run(registry=registry)
    assert time.monotonic() - start < MAX_SECONDS
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"MLflow at http://127.0.0.1:{port}: does not answer")
    assert "then run again: the trained head is kept" in str(error.value)
    with read_lake(Home(home)) as lake:
        ((training_id,),) = lake.rows("SELECT training_id FROM heads")
        assert lake.rows("FROM models") == []
    kept = head_path(Home(home), training_id).read_bytes()
    assert tally.images == 60
    with mlflow_server(tmp_path, registry_template, port) as server:
        server.wait()
        capfd.readouterr()
        report = run(registry=registry)
        printed = capfd.readouterr().out
        version = MlflowClient(server.uri, server.uri).get_model_version_by_alias("photos", "champion")
    assert (report["trained"], report["backbone_calls"], tally.images) == (False, 0, 60)
    assert (report["training"], report["model"]["version"], report["model"]["new"]) == (training_id, 1, True)
    assert version.tags["frostline.training_id"] == training_id
    assert head_path(Home(home), training_id).read_bytes() == kept
    assert printed == ""  # stdout belongs to --json


def test_a_registration_killed_before_its_commit_is_recorded_and_not_repeated(
    run: Run, home: Path, photos: Path
) -> None:
    from flows.embed import embed
    from flows.ingest import ingest
    from flows.settings import RunSettings
    from flows.train import train

    settings = RunSettings(source=photos, home=home)
    ingest(settings)
    embed(settings)
    training_id = train(settings).training.training_id
    register_head(Home(home), ModelName("photos"), training_id, write_page, settings.embed.batch, settings.registry)
    with read_lake(Home(home)) as lake:
        assert lake.rows("FROM models") == []
    report = run()
    assert (report["model"]["version"], report["model"]["alias"], report["backbone_calls"]) == (1, "champion", 0)
    with read_lake(Home(home)) as lake:
        assert lake.rows("SELECT version, training_id, alias FROM models") == [(1, training_id, "champion")]
        assert lake.value("SELECT count(*) FROM predictions") == 60
    assert len(versions(home)) == 1


@pytest.mark.parametrize("off", [0.01, 0.1])
def test_a_machine_registers_only_within_the_recipes_tolerance(
    home: Path, tally: Tally, photos: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    from flows.embed import embed
    from flows.ingest import ingest
    from flows.settings import RunSettings
    from flows.train import train

    settings = RunSettings(source=photos, home=home)
    for step in (ingest, embed, train):
        step(settings)
    assert tally.images == 60
    with open_lake(Home(home)) as lake:
        ((training_id, recipe_id),) = lake.rows("SELECT training_id, recipe_id FROM heads")
        probes = Canaries((Probe("drawn", b""),), np.ones((1, 48), np.float32), 0.05, {}, 1.0)
        save_canaries(lake, recipe_id, probes, datetime.now(UTC))
    original = open_images

    def open_with_error(
        folder: Path, batch: int | None, views: int, budget: Budget
    ) -> Callable[[Sequence[bytes]], Matrix]:
        embed = original(folder, batch, views, budget)
        return lambda images: embed(images) * np.float32(1 + off)

    monkeypatch.setattr("tasks.register.register.open_images", open_with_error)
    if off < 0.05:
        assert register_head(Home(home), ModelName("photos"), training_id, write_page, None, RegisterSettings()) == "1"
    else:
        with pytest.raises(RegistryError, match=r"differ from the lake's by 1.0e-01 of their length, 5.0e-02"):
            register_head(Home(home), ModelName("photos"), training_id, write_page, None, RegisterSettings())


def test_lost_rows_and_an_emptied_store_are_filled_again_without_training(
    first_report: dict[str, Any], run: Run, home: Path, registry_template: Path, tally: Tally
) -> None:
    first = first_report
    forget_versions(home)  # as a kill between the promotion and the lake's commit does
    second = run()
    assert (second["model"]["version"], second["model"]["alias"]) == (1, "champion")
    with read_lake(Home(home)) as lake:
        assert lake.rows("SELECT version, training_id, alias FROM models") == [(1, first["training"], "champion")]
    assert len(versions(home)) == 1
    (home / "mlflow" / "mlflow.db").write_bytes(registry_template.read_bytes())  # as if moved to another server
    with pytest.raises(RegistryError, match="is not the registry of the versions in this lake"):
        run()
    third = run(registry={"take_over": True})
    assert (third["trained"], third["training"], tally.images) == (False, first["training"], 60)
    assert (third["model"]["version"], third["model"]["new"], third["model"]["alias"]) == (1, True, "champion")


def test_the_tracking_uri_is_the_setting_else_the_variable_else_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home, given = Home(tmp_path), RegisterSettings(tracking_uri="http://set")
    assert resolve_tracking_uri(home, RegisterSettings()) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert resolve_tracking_uri(home, RegisterSettings()) == "http://environment"
    assert resolve_tracking_uri(home, given) == "http://set"


def test_homes_used_in_turn_keep_their_own_stores(
    tmp_path: Path, registry_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("one", "two"):
        store = tmp_path / name / "mlflow" / "mlflow.db"
        store.parent.mkdir(parents=True)
        store.write_bytes(registry_template.read_bytes())
        with open_registry(Home(tmp_path / name), RegisterSettings()) as client:
            assert client.tracking_uri == f"sqlite:///{store}"
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_mlflow_sends_no_telemetry(home: Path) -> None:
    decided = {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"}
    env = {name: value for name, value in environment().items() if name not in decided}
    command = [sys.executable, "-c", TELEMETRY.format(home=str(home))]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.split() == ["True", "None"]


def test_the_users_own_telemetry_setting_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    configure_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_the_link_to_a_model_with_spaces_in_its_name_is_quoted() -> None:
    made = RegisteredVersion(ModelName("my photos"), 1, None, "run", "1", "http://127.0.0.1:5000", True, "first")  # noqa: FBT003
    assert model_url(made) == "http://127.0.0.1:5000/#/models/my%20photos/versions/1"


def forget_versions(home: Path) -> None:
    """Put the lake into the state before the commit of a registration."""
    from storage.lake.attach import open_lake

    with open_lake(Home(home)) as lake:
        lake.commit(lambda: lake.execute("DELETE FROM models; DELETE FROM predictions"))


def versions(home: Path) -> list[Any]:
    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    return list(MlflowClient(uri, uri).search_model_versions("name='photos'"))

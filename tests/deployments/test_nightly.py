"""The nightly deployment with a real Prefect server, a real worker, a real MLflow server and the embedded backbone."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mlflow import MlflowClient

from tests.pictures import write_folder
from tests.servers import ROOT, mlflow_server, prefect_server, process, request

FINAL_STATES = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Site:
    """The folder that the deployment runs in, its MLflow server, and a client of its Prefect server."""

    folder: Path
    mlflow: str
    env: dict[str, str]

    @property
    def api(self) -> str:
        return self.env["PREFECT_API_URL"]

    def settings(self, source: str = "photos") -> dict[str, object]:
        return {
            "source": str(self.folder / source),
            "home": str(self.folder / "home"),
            "registry": {"tracking_uri": self.mlflow},
        }

    def prefect(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deployment(self, name: str = "pipeline/nightly") -> dict[str, Any]:
        return dict(request(f"{self.api}/deployments/name/{name}"))

    def trigger(self, source: str = "photos") -> str:
        url = f"{self.api}/deployments/{self.deployment()['id']}/create_flow_run"
        body = {"parameters": {"settings": self.settings(source)}, "idempotency_key": str(uuid4())}
        return str(request(url, body)["id"])

    def wait(self, run_id: str, until: Callable[[str], bool] = FINAL_STATES.__contains__, seconds: float = 150) -> str:
        """Wait for a run's state; returns its type and message."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = request(f"{self.api}/flow_runs/{run_id}")["state"]
            if until(state["type"]):
                return f"{state['type']} {state['message']}"
            time.sleep(0.3)
        raise AssertionError(f"run {run_id} hangs: {state}\n{(self.folder / 'worker.log').read_text()[-4000:]}")

    def artifact(self, run_id: str) -> str:
        query = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": ["frostline-photos"]}}}
        (artifact,) = request(f"{self.api}/artifacts/filter", query)
        assert artifact["type"] == "markdown"
        return str(artifact["data"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, registry_template: Path) -> Iterator[Site]:
    """The servers, the deployments of prefect.yaml, and a worker."""
    folder = tmp_path_factory.mktemp("site")
    write_folder(folder / "photos")
    with prefect_server(folder) as (prefect, env), mlflow_server(folder, registry_template) as mlflow:
        deployed = Site(folder, mlflow.uri, env)
        prefect.wait()
        deployed.prefect("work-pool", "create", "frostline", "--type", "process")
        deployed.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        with process(folder / "worker.log", env, "prefect", "worker", "start", "--pool", "frostline"):
            mlflow.wait()
            yield deployed


@pytest.fixture(scope="module")
def overlapping(site: Site) -> tuple[str, str]:
    """A first run, and one that started during it; both have ended."""
    one = site.trigger()
    site.wait(one, until=lambda state: state != "SCHEDULED")
    other = site.trigger()
    site.wait(other)
    site.wait(one)
    return one, other


@pytest.fixture(scope="module")
def second(site: Site, overlapping: tuple[str, str]) -> str:  # noqa: ARG001 - runs after them
    """A later run on the same photos; it has ended."""
    run_id = site.trigger()
    site.wait(run_id)
    return run_id


@pytest.mark.parametrize(
    ("name", "cron", "entrypoint"),
    [
        ("pipeline/nightly", "0 2 * * *", "flows.pipeline.pipeline"),
        ("maintain/weekly", "0 5 * * 0", "flows.weekly.maintain_lake"),
    ],
)
def test_a_deployment_has_its_schedule_and_runs_one_at_a_time(
    site: Site, name: str, cron: str, entrypoint: str
) -> None:
    found = site.deployment(name)
    assert [row["schedule"] for row in found["schedules"] if row["active"]] == [
        {"cron": cron, "timezone": "UTC", "day_or": True}
    ]
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert (found["work_pool_name"], found["entrypoint"]) == ("frostline", entrypoint)
    assert found["job_variables"]["env"] == {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,storage,flows",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def test_the_run_form_has_a_help_text_for_every_setting(site: Site) -> None:
    schema = site.deployment()["parameter_openapi_schema"]
    models = {name: part for name, part in schema["definitions"].items() if "properties" in part}
    steps = {
        "IngestSettings",
        "EmbedSettings",
        "TrainSettings",
        "TailSettings",
        "SearchSettings",
        "RegisterSettings",
        "GateSettings",
    }
    assert set(models) == {"RunSettings", "LakeSettings", *steps}
    texts = {
        (name, key): row.get("description") or models[row["$ref"].rpartition("/")[2]]["description"]
        for name, part in models.items()
        for key, row in part["properties"].items()
    }
    assert texts["EmbedSettings", "backbone"].startswith("The network: timm/NAME or torchvision/NAME")
    assert all(texts.values())


def test_a_run_completes_and_an_overlapping_one_is_cancelled(site: Site, overlapping: tuple[str, str]) -> None:
    assert [site.wait(run_id).split()[0] for run_id in overlapping] == ["COMPLETED", "CANCELLED"]


def test_a_run_leaves_an_artifact_that_describes_it_and_links_to_mlflow(
    site: Site, overlapping: tuple[str, str]
) -> None:
    text = site.artifact(overlapping[0])
    assert "embedded 60 · reused 0 · failed 0" in text
    assert f"[photos version 1]({site.mlflow}/#/models/photos/versions/1)" in text


@pytest.mark.usefixtures("overlapping")
def test_a_run_registers_its_model_as_champion_in_the_mlflow_server(site: Site) -> None:
    client = MlflowClient(site.mlflow, site.mlflow)
    version = client.get_model_version_by_alias("photos", "champion")
    assert (str(version.version), version.status) == ("1", "READY")
    files = {file.path for file in client.list_artifacts(str(version.run_id))}
    assert {"recipe.json", "classes.json", "confusion.png", "evaluation.json"} <= files


def test_a_second_run_on_the_same_photos_embeds_and_registers_nothing(site: Site, second: str) -> None:
    text = site.artifact(second)
    assert "embedded 0 · reused 60 · failed 0" in text
    assert "nothing changed, nothing trained" in text
    versions = MlflowClient(site.mlflow, site.mlflow).search_model_versions("name='photos'")
    assert [str(version.version) for version in versions] == ["1"]


@pytest.mark.usefixtures("second")
def test_a_missing_folder_fails_the_run_with_the_reason(site: Site) -> None:
    state = site.wait(site.trigger("nowhere"))
    assert state.startswith("FAILED")
    assert "nowhere" in state

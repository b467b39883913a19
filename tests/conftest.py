"""What several rooms' tests share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.settings import configure_prefect
from tests.counting import Tally, install
from tests.first_run import first_report, first_run  # noqa: F401 - fixtures
from tests.lakes import one_thread, place, postgres, s3  # noqa: F401 - fixtures
from tests.pictures import write_folder
from tests.servers import outlived, without_server

if TYPE_CHECKING:
    from flows.embed import Embedded

# Container images often forbid to write bytecode: then each process that a test starts compiles all that it imports.
# It lies apart, as models and folders that tests look at must hold none.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
sys.pycache_prefix = os.environ.setdefault(
    "PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache/bytecode")
)
configure_prefect(debug=False)
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import prefect  # noqa: E402, F401 - as in a worker before any flow, which is Prefect's own then

TESTS = Path(__file__).parent
LONGEST = (
    "test_checks.py",
    "deployments/test_nightly.py",
    "faults/test_crash.py",
    "faults/test_first_runs.py",
    "faults/test_many_runs.py",
    "flows/command/test_doctor.py",
    "flows/test_once.py",
    "flows/command/test_cli.py",
    "register/test_serving.py",
    "register/test_registry.py",
    "encoder/test_cuts.py",
    "register/test_champion.py",
    "flows/test_search.py",
    "flows/test_shared_lake.py",
    "storage/care/test_erase.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one at the end would leave the other workers idle."""
    ranks = {TESTS / file: rank for rank, file in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def one_thread_a_lake() -> Iterator[None]:
    """Let lakes that tests open in their own process work on one thread; the processes they start keep the default."""
    with one_thread():
        yield


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Prefect's test harness, once a session: its server's address."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    # No test reads events: the server need not keep them.
    no_events = {
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED: False,
        PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED: False,
    }
    with (
        temporary_settings(no_events),
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        started = SubprocessASGIServer().server_process  # the harness's
        assert started
        with outlived(started.pid):
            yield str(PREFECT_API_URL.value())


@pytest.fixture(autouse=True)
def no_server_unless_requested(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let flows be plain calls, which is faster, in all tests that do not request ``prefect_api``."""
    with nullcontext() if "prefect_api" in request.fixturenames else without_server():
        yield


@pytest.fixture
def tally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tally:
    """The counting backbone in place of a real one."""
    counter = Tally(tmp_path / "backbone-calls")
    install(monkeypatch, counter)
    return counter


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 60 images in three classes."""
    return write_folder(tmp_path / "photos")


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, made once: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home(tmp_path: Path, registry_template: Path) -> Path:
    """A home with no lake and an empty MLflow store."""
    root = tmp_path / "home"
    (root / "mlflow").mkdir(parents=True)
    shutil.copy(registry_template, root / "mlflow" / "mlflow.db")
    return root


@pytest.fixture
def run(tally: Tally, photos: Path, home: Path) -> Callable[..., dict[str, Any]]:  # noqa: ARG001
    """The pipeline over ``photos`` with the counting backbone; keywords are settings; gives the report."""
    from flows.pipeline import pipeline
    from flows.settings import RunSettings

    return lambda **settings: pipeline(RunSettings(**{"source": photos, "home": home, **settings})).to_json()


@pytest.fixture
def embed_photos(tally: Tally, photos: Path, home: Path) -> Callable[..., "Embedded"]:  # noqa: ARG001
    """The flows up to features, for tests that look at no model; takes and does what ``run`` does until then."""
    from flows.embed import embed
    from flows.ingest import ingest
    from flows.settings import RunSettings

    def run(**settings: object) -> "Embedded":
        chosen = RunSettings.model_validate({"source": photos, "home": home, **settings})
        ingest(chosen)
        return embed(chosen)

    return run


@pytest.fixture
def frostline_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``frostline`` in a folder within this process, which has imported all already; returns its exit code."""
    from flows.command.app import run_command

    def call(folder: Path, *arguments: str) -> int:
        monkeypatch.chdir(folder)
        try:
            run_command(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return call

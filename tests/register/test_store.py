"""MLflow's local store is created once, however many runs start at once and wherever they are killed."""

import sqlite3
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from mlflow import MlflowClient

from storage.locations.home import Home, open_home
from storage.names import ModelName
from tasks.register.registry.client import find_experiment, open_registry
from tasks.register.registry.store import make_store
from tasks.register.settings import RegisterSettings

ROUNDS, RUNS = 3, 4


def register_nothing(home: Home) -> None:
    """Do what the registering step of a first run does before it logs anything."""
    with open_registry(home, RegisterSettings()) as client:
        find_experiment(client, home, ModelName("photos"))


def test_four_first_runs_share_one_store(tmp_path: Path) -> None:
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for round_ in range(ROUNDS):
        home = open_home(tmp_path / f"home-{round_}")
        runs = [processes.Process(target=register_nothing, args=(home,)) for _ in range(RUNS)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [run.exitcode for run in runs] == [0] * RUNS
        experiments = MlflowClient(f"sqlite:///{home.registry}/mlflow.db").search_experiments()
        assert sorted(experiment.name for experiment in experiments) == ["Default", "photos"]
        assert [path.name for path in home.registry.iterdir()] == ["mlflow.db"]


def test_a_store_that_was_interrupted_while_it_was_created_is_created_anew(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    make_store(path)
    assert [experiment.name for experiment in MlflowClient(f"sqlite:///{path}").search_experiments()] == ["Default"]


def test_a_store_that_holds_something_is_left_alone(tmp_path: Path, registry_template: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(registry_template.read_bytes())
    MlflowClient(f"sqlite:///{path}").create_experiment("photos")
    before = path.read_bytes()
    make_store(path)
    assert path.read_bytes() == before

"""The lake follows the champion: who it is, since when, why, and what it predicts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from storage.errors import RegistryError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from tests.pictures import write_image

Run = Callable[..., dict[str, Any]]
REJECTED = {"l2": (100.0,)}


def read(home: Path, sql: str) -> list[Any]:
    with read_lake(Home(home)) as lake:
        return lake.rows(sql)


def test_people_see_the_predictions_of_the_champion_and_it_predicts_images_that_came_after_it(
    first_report: dict[str, Any], run: Run, home: Path, photos: Path
) -> None:
    assert (first_report["model"]["version"], first_report["model"]["alias"]) == (1, "champion")
    write_image(photos / "red" / "late.png", "red", 5000)
    second = run(train=REJECTED)
    assert (second["model"]["version"], second["model"]["alias"]) == (2, None)
    assert read(home, "SELECT version, count(*) FROM latest_predictions GROUP BY version") == [(1, 61)]
    assert read(home, "SELECT name, version, until IS NULL FROM champions") == [("photos", 1, True)]
    (compared,) = read(home, "SELECT list(image_id ORDER BY image_id) FROM gate_rows WHERE version = 1")
    (tested,) = read(
        home,
        f"""SELECT list(image_id ORDER BY image_id) FROM training_sets
            WHERE split = 'test' AND training_id = '{first_report["training"]}'""",
    )
    assert compared == tested
    assert read(home, "SELECT images FROM champions") == [(len(tested[0]),)]

    client = MlflowClient(*2 * (f"sqlite:///{home}/mlflow/mlflow.db",))
    client.set_registered_model_alias("photos", "champion", "2")
    assert not run(train=REJECTED)["model"]["new"]
    assert read(home, "SELECT version, count(*) FROM latest_predictions GROUP BY version") == [(2, 61)]
    assert read(home, "SELECT version, until IS NULL, reason FROM champions ORDER BY since")[1:] == [
        (2, True, "the alias was set in MLflow")
    ]
    assert read(home, "SELECT c.version FROM champions c JOIN champions d ON c.until = d.since") == [(1,)]
    assert read(home, "SELECT alias FROM models ORDER BY version") == [("champion",), (None,)]  # when registered


def test_two_registries_share_no_versions(first_report: dict[str, Any], run: Run, home: Path, tmp_path: Path) -> None:
    elsewhere = {"tracking_uri": f"sqlite:///{tmp_path}/other.db"}
    with pytest.raises(RegistryError, match="is not the registry of the versions in this lake"):
        run(registry=elsewhere)
    assert read(home, "SELECT count(*) FROM models") == [(1,)]
    taken_over = run(registry={**elsewhere, "take_over": True})
    assert taken_over["model"]["new"]
    assert taken_over["model"]["version"] == first_report["model"]["version"] == 1
    assert read(home, "SELECT version, count(DISTINCT registry), count(DISTINCT run_id) FROM models GROUP BY ALL") == [
        (1, 2, 2)
    ]
    assert read(home, "SELECT count(*) FROM latest_predictions") == [(60,)]
    assert not run(registry=elsewhere)["model"]["new"]  # known by now

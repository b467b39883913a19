"""Lineage: from a model version to its rows, snapshot, recipe and code; from an image to all that used it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import QueryError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.queries.lineage import trace
from storage.recipe import read_recipe
from storage.release import name_release
from storage.tables.features import read_features
from tests.storage.lake.test_migrate import first as first  # noqa: PLC0414 - a fixture


@pytest.fixture
def lake(first: Any) -> Iterator[Lake]:  # noqa: ANN401
    """Two models: the second was trained with one image more and one less than the first."""
    with open_lake(first) as opened:
        yield opened


def find_image(lake: Lake, path: str) -> str:
    return str(lake.value("SELECT image_id::VARCHAR FROM files WHERE path = ?", [path]))


def test_a_version_leads_to_its_exact_rows_with_their_features(lake: Lake) -> None:
    recipe_id = lake.value("SELECT recipe_id FROM recipes")
    for version in (1, 2):
        rows = lake.rows(
            "SELECT image_id::VARCHAR, class, split, vector FROM model_rows WHERE version = ? ORDER BY ALL", [version]
        )
        trained = lake.rows(
            """SELECT image_id::VARCHAR, class, split FROM training_sets JOIN models USING (training_id)
               WHERE version = ? ORDER BY ALL""",
            [version],
        )
        assert [row[:3] for row in rows] == trained
        assert len(rows) == 30
        matrix = read_features(lake, recipe_id, [row[0] for row in rows])
        assert np.array_equal(np.array([row[3] for row in rows], np.float32), matrix)


def test_a_version_leads_to_its_snapshot_recipe_and_settings(lake: Lake) -> None:
    one, two = (trace(lake, "photos", version) for version in (1, 2))
    assert trace(lake, "photos") == two
    assert (one["snapshot"], one["alias"], one["code"]) == (
        4,
        "champion",
        None,
    )  # the first release did not name itself
    assert two["snapshot"] > one["snapshot"]
    assert read_recipe(one["recipe"]).recipe_id == one["recipe_id"]
    assert json.loads(one["settings"])["seed"] == 0
    assert sum(row["images"] for row in one["rows"]) == 30
    with pytest.raises(QueryError, match="photos version 3"):
        trace(lake, "photos", 3)
    with pytest.raises(QueryError, match="model flowers"):
        trace(lake, "flowers")


def test_an_image_leads_to_every_model_and_prediction_that_used_it(lake: Lake) -> None:
    in_both = trace(lake, find_image(lake, "red/000.png"))["used_by"]
    assert [(row["version"], row["class"], row["predicted"]) for row in in_both] == [
        (1, "red", "red"),
        (2, "red", "red"),
    ]
    assert all(row["split"] in {"train", "validation", "test"} and row["probability"] > 0.5 for row in in_both)
    later = trace(lake, find_image(lake, "red/later.png"))["used_by"]
    assert [row["version"] for row in later] == [2]
    lake.commit(
        lambda: lake.execute(
            "INSERT INTO predictions SELECT 'photos', 1, ?::UUID, 'red', 0.9, now(), registry "
            "FROM models WHERE version = 1",
            [later_id(lake)],
        )
    )
    scored, trained = trace(lake, later_id(lake))["used_by"]
    assert (scored["version"], scored["class"], scored["split"], scored["predicted"]) == (
        1,
        None,
        None,
        "red",
    )
    assert (trained["version"], trained["class"], trained["predicted"]) == (2, "red", "red")
    with pytest.raises(QueryError, match=r"image 0{32}: does not exist in this lake"):
        trace(lake, "0" * 32)


def later_id(lake: Lake) -> str:
    return find_image(lake, "red/later.png")


@pytest.mark.usefixtures("first_report")
def test_a_head_names_the_code_that_trained_it(home: Path) -> None:
    with read_lake(open_home(home)) as lake:
        assert trace(lake, "photos")["code"] == name_release()


def test_the_release_names_its_commit_only_in_a_checkout(tmp_path: Path) -> None:
    assert "+" not in name_release(tmp_path)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert name_release(tmp_path) == f"{name_release(tmp_path / 'none')}+{head.stdout.strip()}"

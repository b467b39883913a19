"""A home of the second release still works: heads and models answer as before, and a run computes nothing again.

``make_second_lake.py`` made it, with a linear head (``photos``) and a tail (``photos-tail``) for the same images.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.lake.attach import read_lake
from storage.locations.home import Home, open_home
from storage.tables.features import read_features
from storage.tables.trainings import Training, find_training, head_path
from tasks.encoder.layers import open_layers
from tasks.heads.files import load_head
from tasks.heads.heads import Classifier, Tail
from tasks.heads.load import read_head
from tests.encoder.test_cuts import one_thread as one_thread  # noqa: PLC0414 - a fixture
from tests.pictures import write_image

SECOND = Path(__file__).parent / "lakes" / "second_lake.tar.xz"
NAMES = ("photos", "photos-tail")
OPENER = b"tasks.embed.cuts:open_tail"
"""What the release wrote into a tail's file. It stays the same, whatever the function is called now."""

PREDICT = """
import json, sys
from pathlib import Path
import mlflow, pandas as pd

folder, *images = map(Path, sys.argv[1:])
model = mlflow.pyfunc.load_model(str(folder))
answers = model.predict(pd.DataFrame({"image": [path.read_bytes() for path in images]})).to_dict("records")
files = [sys.modules[path.name].__file__ for path in (folder / "code").iterdir() if path.is_dir()]
print(json.dumps({"answers": answers, "files": files}))
"""


@dataclass(frozen=True)
class Second:
    """The unpacked home beside its photos, and what the release recorded about it."""

    root: Path
    expected: dict[str, Any]

    @property
    def home(self) -> Home:
        return open_home(self.root / "home")

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    def run(self, name: str) -> dict[str, Any]:
        """Run the pipeline with the settings of the release's own runs."""
        from flows.pipeline import pipeline
        from flows.settings import RunSettings

        settings = self.expected[name]["settings"]
        embed = {**settings["embed"], "weights": str(self.root / settings["embed"]["weights"])}
        values = {**settings, "embed": embed, "source": self.photos, "home": self.home.root}
        return pipeline(RunSettings.model_validate(values)).to_json()

    def find_training(self, name: str) -> Training:
        with read_lake(self.home) as lake:
            training = find_training(lake, self.expected[name]["report"]["training"])
        assert training
        return training


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive, whose photos have the times that the lake knows."""
    root = tmp_path_factory.mktemp("second")
    with tarfile.open(SECOND) as packed:
        packed.extractall(root, filter="data")
    restore_times(root)
    return root


@pytest.fixture
def second(template: Path, tmp_path: Path) -> Second:
    """A copy, so that each test has a home of its own."""
    root = tmp_path / "second"
    shutil.copytree(template, root)
    expected = json.loads((root / "expected.json").read_text())
    replace_text(root / "home" / "mlflow" / "mlflow.db", expected["root"], str(root))
    return Second(root, expected["models"])


def restore_times(root: Path) -> None:
    """Give the photos the times that the lake has for them; an archive rounds them."""
    with read_lake(open_home(root / "home")) as lake:
        for path, time in lake.rows("SELECT DISTINCT path, mtime_ns FROM files"):
            os.utime(root / "photos" / path, ns=(time, time))


def replace_text(database: Path, old: str, new: str) -> None:
    """Replace a text wherever a database has it: MLflow stores the absolute locations of its artifacts."""
    with contextlib.closing(sqlite3.connect(database)) as store:
        for table, column in list_texts(store):
            sql = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
            store.execute(sql, [old, new, old])
        store.commit()


def list_texts(store: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """List the tables and columns that hold text."""
    sql = "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    for table, column, kind in store.execute(sql).fetchall():
        if kind.startswith(("VARCHAR", "TEXT", "CLOB")):
            yield table, column


def to_array(answers: list[dict[str, Any]], classes: tuple[str, ...], key: str) -> np.ndarray[Any, Any]:
    return np.array([[answer[key][name] for name in classes] for answer in answers])


@pytest.mark.parametrize("name", NAMES)
def test_the_lake_lists_every_version_and_what_it_was_made_from(second: Second, name: str) -> None:
    with read_lake(second.home) as lake:
        versions = lake.dicts(
            """SELECT version, alias, run_id, training_id, recipe_id, heads.snapshot, code
               FROM models JOIN heads USING (training_id) WHERE name = ? ORDER BY version""",
            [name],
        )
        assert versions == second.expected[name]["versions"]
    for version in versions:
        with read_lake(second.home, version["snapshot"]) as lake:
            assert not lake.value("SELECT count(*) FROM heads WHERE training_id = ?", [version["training_id"]])
            assert lake.value("SELECT count(*) FROM features WHERE recipe_id = ?", [version["recipe_id"]]) in {60, 61}


@pytest.mark.parametrize("name", NAMES)
def test_a_head_computes_the_same_probabilities(second: Second, name: str) -> None:
    training = second.find_training(name)
    path, backbone = head_path(second.home, training.training_id), second.home.backbones / training.recipe_id
    answers = second.expected[name]["answers"]
    with read_lake(second.home) as lake:
        features = read_features(lake, training.recipe_id, [answer["image_id"] for answer in answers])
    heads: list[Classifier] = [read_head(second.home, training, open_layers), load_head(path, backbone, open_layers)]
    for head in heads:
        expected = to_array(answers, head.classes, "head")
        np.testing.assert_allclose(head.probabilities(features), expected, rtol=0, atol=1e-6)
        assert isinstance(head, Tail) == (name == "photos-tail") == (OPENER in path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_model_runs_on_its_own_copy_of_the_code_and_gives_the_same_answers(
    second: Second, tmp_path: Path, name: str
) -> None:
    expected, folder = second.expected[name]["answers"], second.root / second.expected[name]["model"]
    command = [sys.executable, "-c", PREDICT, folder, *(second.photos / answer["path"] for answer in expected)]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    predicted = json.loads(subprocess.check_output(command, cwd=tmp_path, env=variables, text=True))
    assert predicted["files"]
    assert all(Path(file).is_relative_to(folder / "code") for file in predicted["files"])
    assert [answer["class"] for answer in predicted["answers"]] == [answer["class"] for answer in expected]
    classes = tuple(expected[0]["served"])
    probabilities = to_array(predicted["answers"], classes, "probabilities")
    np.testing.assert_allclose(probabilities, to_array(expected, classes, "served"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_over_the_same_images_does_nothing_and_one_more_image_is_all_that_it_computes(
    second: Second,
    name: str,
) -> None:
    before = second.expected[name]["report"]
    again = second.run(name)
    assert again["files"] == {"seen": 62, "opened": 62, "ignored": 0, "failed": 1}
    assert again["features"] == {"computed": 0, "reused": 61, "failed": 1}
    assert again["backbone_calls"] == 0
    assert not again["trained"]
    assert not again["model"]["new"]
    for same in ("recipe", "training", "chosen", "metrics"):
        assert again[same] == before[same]
    assert again["model"]["version"] == before["model"]["version"]

    write_image(second.photos / "blue" / "another.png", "blue", 3000)
    more = second.run(name)
    assert more["files"] == {"seen": 63, "opened": 1, "ignored": 0, "failed": 1}
    assert more["features"] == {"computed": 1, "reused": 61, "failed": 1}
    assert more["backbone_calls"] == 1
    assert more["recipe"] == before["recipe"]
    assert more["trained"]
    assert more["training"] != before["training"]
    assert more["model"]["new"]
    assert more["model"]["version"] == before["model"]["version"] + 1


def test_the_archive_is_small_and_has_no_paths_of_the_machine_that_made_it(template: Path) -> None:
    assert SECOND.stat().st_size < 1_600_000
    for path in template.rglob("*"):
        assert not path.is_file() or not any(word in path.read_bytes() for word in (b"/work/", b"/root/", b"/Users/"))

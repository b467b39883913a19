"""Models that give an image several labels, or the answer "neither": trained, registered, loaded and called."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc import load_model as load_pyfunc
from PIL import Image

from flows.operations.doctor import examine
from flows.operations.evaluate import describe, evaluate_head, write_html
from flows.operations.review import apply_decisions, review
from storage.errors import ReviewError
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import LabelSetName, ModelName
from storage.queries.lineage import trace
from storage.tables.trainings import head_path
from tasks.heads.answers import is_multi_label
from tasks.heads.files import load_head
from tests.pictures import COLORS

Run = Callable[..., dict[str, Any]]

SETS = (["red"], ["green"], ["blue"], ["blue", "red"], ["blue", "green"], ["green", "red"])
LABELS = {"multi_label": True}


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """90 images of one or two colors, each in the folder of every color that it has."""
    root = tmp_path / "scenes"
    for number in range(90):
        for name in SETS[number % 6]:
            write_scene(root / name / f"{number}.png", SETS[number % 6], number)
    return root


def write_scene(path: Path, colors: Sequence[str], seed: int) -> None:
    """Write an 8 x 8 PNG with the first color on the left and the last on the right."""
    noise = np.random.default_rng(seed).integers(-30, 30, (8, 8, 3))
    halves = np.repeat(np.array([[COLORS[colors[0]]] * 4 + [COLORS[colors[-1]]] * 4]), 8, axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(halves + noise, 1, 255).astype(np.uint8)).save(path)


def load_model(home: Path) -> PyFuncModel:
    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    client = MlflowClient(uri, uri)
    source = client.get_model_version(client.search_registered_models()[0].name, "1").source
    place = client.get_logged_model(str(source).removeprefix("models:/")).artifact_location
    return load_pyfunc(unquote(urlparse(place).path))


def ask(model: PyFuncModel, paths: Sequence[Path]) -> pd.DataFrame:
    return model.predict(pd.DataFrame({"image": [path.read_bytes() for path in paths]}))


def list_predictions(home: Path) -> dict[str, list[str]]:
    """Return the predicted classes of each file."""
    with read_lake(Home(home)) as lake:
        rows = lake.rows(
            """SELECT path, list(p.class ORDER BY p.class) FROM files JOIN latest_predictions p USING (image_id)
               GROUP BY path"""
        )
    return dict(rows)


def test_a_multi_label_model_gives_each_image_all_its_labels(
    run: Run, scenes: Path, home: Path, tmp_path: Path
) -> None:
    report = run(source=scenes, train=LABELS)
    assert (report["backbone_calls"], report["conflicts"], report["model"]["alias"]) == (90, 0, "champion")
    assert report["metrics"]["mean_average_precision"] > 0.9
    again = run(source=scenes, train=LABELS)
    assert (again["trained"], again["model"]["new"], again["backbone_calls"]) == (False, False, 0)
    assert examine(Home(home), datetime.now(UTC)) == []  # several rows per image are fine
    check_answers(scenes, home, report["training"])
    check_review(home, report["name"], tmp_path)
    check_lineage(home)
    check_evaluation(home, report, tmp_path / "page.html")


def check_review(home: Path, name: str, folder: Path) -> None:
    """Reviews are refused: a decision is one class and must not replace several labels."""
    with read_lake(Home(home)) as lake:
        image_id = lake.value("SELECT image_id::VARCHAR FROM labels LIMIT 1")
    table = folder / "review.csv"
    table.write_text(f"image_id,decision\n{image_id},red\n")
    with pytest.raises(ReviewError, match="several labels per image"):
        apply_decisions(Home(home), LabelSetName(name), table)
    with pytest.raises(ReviewError, match="several labels per image"):
        review(Home(home), LabelSetName(name), folder)


def check_answers(scenes: Path, home: Path, training_id: str) -> None:
    """The model and the lake give each image the labels above their thresholds."""
    paths = sorted(scenes.rglob("*.png"))
    answers, head = ask(load_model(home), paths), load_head(head_path(Home(home), training_id))
    assert list(answers) == ["classes", "probabilities"]
    assert is_multi_label(head)
    least, said, right = dict(zip(head.classes, head.thresholds, strict=True)), list_predictions(home), 0
    for path, classes, chances in zip(paths, answers["classes"], answers["probabilities"], strict=True):
        assert list(chances) == ["blue", "green", "red"]
        assert classes == [name for name, chance in chances.items() if chance >= least[name]]
        assert classes == said.get(str(path.relative_to(scenes)), [])
        right += classes == SETS[int(path.stem) % 6]
    assert right > 0.9 * len(paths)


def check_lineage(home: Path) -> None:
    """An image has a row per label, true or predicted."""
    with open_lake(Home(home)) as lake:
        image_id = str(lake.value("SELECT image_id FROM files WHERE path = 'blue/3.png'"))
        used = trace(lake, image_id)["used_by"]
        assert [(row["class"], row["predicted"]) for row in used if row["class"]] == [("blue", "blue"), ("red", "red")]
        assert len({row["split"] for row in used}) == 1
        lake.commit(lambda: lake.execute("UPDATE predictions SET class = 'green' WHERE class = 'red'"))
        found = {(row["class"], row["predicted"]) for row in trace(lake, image_id)["used_by"]}
        assert found == {("blue", "blue"), ("red", None), (None, "green")}
        assert sum(row["images"] for row in trace(lake, "scenes")["rows"]) == 135


def check_evaluation(home: Path, report: dict[str, Any], page: Path) -> None:
    """The evaluation shows metrics per label, and every image with a wrong label."""
    found = evaluate_head(Home(home), LabelSetName("scenes"), ModelName("scenes"), None)
    images = found["images"]
    assert sum(images.values()) == 90
    assert sum(sum(row.values()) for row in found["splits"].values()) == 135
    assert {"threshold", "average_precision", "f1"} <= set(found["classes"][0])
    assert report["metrics"]["accuracy"] == pytest.approx(1 - len(found["mistakes"]) / images["test"])
    assert describe(found)
    write_html(Home(home), report["training"], page)
    for words in ("Mean average precision", "Threshold", f"{images['test']} test"):
        assert words in page.read_text()


def test_a_model_that_may_answer_neither_does_so_when_served_and_in_the_lake(
    run: Run, photos: Path, home: Path
) -> None:
    least = run(train={"false_accept": 0.4})["metrics"]["refuse_below"]
    strange = photos.parent / "strange.png"
    lit_corner = Image.new("RGB", (8, 8))
    lit_corner.paste((250, 250, 250), (0, 0, 2, 2))
    lit_corner.save(strange)
    paths = [*sorted(photos.rglob("*.png")), strange]
    answers, said = ask(load_model(home), paths), list_predictions(home)
    for path, name, chance, chances in zip(paths, *(answers[each] for each in answers), strict=True):
        assert chance == max(chances.values())
        assert name in {"neither", max(chances, key=lambda each: chances[each])}
        if path != strange:
            assert said[str(path.relative_to(photos))] == [name]
    assert answers["class"].iloc[-1] == "neither"
    assert set(answers["class"]) > {"neither"}
    found = evaluate_head(Home(home), LabelSetName("photos"), ModelName("photos"), 1)
    assert {"false_accept", "false_accept_high", "refused", "refused_low"} <= set(found["metrics"])
    assert {row["class"] for row in found["unknown"]} <= {"blue", "green", "red"}
    told = describe(found)
    assert f"neither   if fewer than 5 training images have a cosine of at least {least:.4f} to the image" in told

"""What a user sees of an evaluation: on the terminal, as JSON, and on the page."""

import base64
import io
import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from flows.operations.erase import erase_images
from flows.operations.evaluate import describe, evaluate_head, write_html
from flows.reports.run_lines import describe_trained
from flows.reports.run_report import trained_to_json
from storage.errors import ExportError, TrainError
from storage.lake.attach import open_lake
from storage.locations.home import Home
from storage.names import LabelSetName, ModelName, SourceName
from storage.progress import silent
from storage.tables.features import commit_shard
from storage.tables.models import Version, save_version
from storage.tables.recipes import save_recipe
from storage.tables.scans import commit_scan
from storage.tables.trainings import evaluation_path, head_path
from storage.vectors.feature_file import Shard, write_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.heads.files import load_head
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tasks.train.report.page import write_page
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, train_head
from tests.counting import decide_recipe
from tests.first_run import copy_homes
from tests.flows.command.test_cli import ROOT, CommandResult, refused
from tests.pictures import write_image
from tests.storage.lake.test_migrate import first as first  # noqa: PLC0414 - a fixture
from tests.test_layers import COMMAND, run_python

DOCS = ROOT / "docs" / "evaluation.md"
NASTY = '<b onload="x">&red$'
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Reader(HTMLParser):
    """Collects a page's tags, the addresses in them, its pictures by their description, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.pictures: dict[str, list[str]] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            named = dict(attrs)
            self.pictures.setdefault(named["alt"] or "", []).append(named["src"] or "")
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A head of two classes whose features overlap, made once; the name of one must be escaped in HTML."""
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, train_overlapping(Home(folder / "home"), folder)


@pytest.fixture
def trained(template: tuple[Path, Trained], tmp_path: Path) -> Trained:
    """A copy of it, in ``home``."""
    copy_homes(template[0], tmp_path)
    return template[1]


def train_overlapping(home: Home, tmp_path: Path) -> Trained:
    for number in range(300):
        color, name = ("blue", "blue") if number % 2 else ("red", NASTY)
        write_image(tmp_path / "photos" / name / f"{number}.png", color, number)
    found = scan(home, SourceName("photos"), tmp_path / "photos", IngestSettings(), silent)
    recipe = decide_recipe(EmbedSettings(), Weights(tmp_path, "0" * 64))
    with open_lake(home) as lake:
        commit_scan(lake, found, NOW)
        save_recipe(lake, {}, recipe, NOW)
        rows = lake.rows("SELECT image_id::VARCHAR, class = 'blue' FROM labels ORDER BY image_id")
        vectors = np.random.default_rng(0).normal(size=(300, 48)).astype(np.float32)
        vectors[:, 0] += [2.0 * blue for _, blue in rows]
        file = write_features(home, recipe.recipe_id, [image_id for image_id, _ in rows], vectors)
        commit_shard(lake, Shard(recipe.recipe_id, SourceName("photos"), file, (), 300, 1.0), NOW)
    return train_head(home, TrainingData(LabelSetName("photos"), recipe.recipe_id), TrainSettings(), NOW)


@pytest.fixture
def frostline(frostline_in: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Run the command in a folder."""
    return lambda folder, *arguments: CommandResult(frostline_in(folder, *arguments), *capsys.readouterr())


def read_page(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text())
    return reader


def test_a_training_reports_its_accuracy_and_interval(trained: Trained) -> None:
    metrics = trained.training.metrics
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    line = f"test accuracy {metrics['accuracy']:.4f} ({metrics['accuracy_low']:.4f} to {metrics['accuracy_high']:.4f})"
    assert line in describe_trained(trained_to_json(trained))[0]


def test_the_head_stores_the_temperature_that_calibrates_it(trained: Trained, home: Home) -> None:
    head = load_head(head_path(home, trained.training.training_id))
    assert head.temperature == trained.training.metrics["temperature"] != 1
    metrics = trained.training.metrics
    assert metrics["log_loss"] != metrics["log_loss_before"]


def test_the_command_returns_the_stored_evaluation(trained: Trained, home: Home) -> None:
    training_id = trained.training.training_id
    with open_lake(home) as lake:
        save_version(
            lake,
            Version(ModelName("photos"), 1, training_id, "run", None, "registry"),
            pa.table({"image_id": [], "class": [], "probability": []}),
            NOW,
        )
    found = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)
    assert (found["training"], found["metrics"]) == (training_id, trained.training.metrics)
    recorded = json.loads(evaluation_path(home, training_id).read_text())
    assert {name: found[name] for name in recorded} == recorded
    assert evaluate_head(home, LabelSetName("photos"), ModelName("photos"), 1) == found
    assert training_id in describe(found)[0]


def test_mistakes_are_the_wrongly_predicted_test_images_most_confident_first(trained: Trained, home: Home) -> None:
    found = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)
    mistakes, confusion = found["mistakes"], found["confusion"]
    assert found["metrics"] == trained.training.metrics
    assert len(mistakes) == confusion[0][1] + confusion[1][0] > 2
    assert all(mistake["label"] != mistake["predicted"] for mistake in mistakes)
    assert all(Path(mistake["place"]).parent.name == mistake["label"] for mistake in mistakes)
    confidence = [mistake["probability"] for mistake in mistakes]
    assert confidence == sorted(confidence, reverse=True)


def test_the_page_loads_nothing_and_escapes_every_name(trained: Trained, home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_html(home, trained.training.training_id, page)
    reader = read_page(page)
    assert not reader.tags & {"script", "link", "b", "iframe", "object"}
    assert NASTY in reader.text
    assert "color-scheme: light dark" in page.read_text()
    assert not re.search(r"url\(|@import", page.read_text())
    assert all(address.startswith("data:image/") for address in reader.addresses)
    pictures = {description: len(sources) for description, sources in reader.pictures.items()}
    found = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)
    assert pictures[f"{NASTY}, predicted blue"] + pictures[f"blue, predicted {NASTY}"] == len(found["mistakes"])
    assert pictures["right: blue"] == pictures[f"right: {NASTY}"] == 3
    assert sum(pictures.values()) == len(found["mistakes"]) + 6 + 2  # examples, charts


def test_the_page_shows_mistakes_whose_files_have_not_changed(trained: Trained, home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    first, second, *_ = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)["mistakes"]
    write_html(home, trained.training.training_id, page)
    description = f"{first['label']}, predicted {first['predicted']}"
    shown = base64.b64decode(read_page(page).pictures[description][0].partition(",")[2])
    with Image.open(io.BytesIO(shown)) as thumbnail, Image.open(first["place"]) as image:
        one, other = (np.asarray(picture, np.float64).mean(axis=(0, 1)) for picture in (thumbnail, image))
    np.testing.assert_allclose(one, other, atol=6)
    assert "(cannot be shown)" not in read_page(page).text
    Path(first["place"]).unlink()
    write_image(Path(second["place"]), "green", seed=1)
    write_html(home, trained.training.training_id, page)
    assert read_page(page).text.count("(cannot be shown)") == 2


def test_the_page_names_files_by_their_path_within_the_source(trained: Trained, home: Home, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_html(home, trained.training.training_id, page)
    mistakes = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)["mistakes"]
    names = {Path(mistake["place"]).relative_to(tmp_path / "photos").as_posix() for mistake in mistakes}
    text = read_page(page).text
    assert all(name in text for name in names)
    assert str(tmp_path) not in text


def test_the_verdict_comes_first_on_the_page_and_on_the_terminal(trained: Trained, home: Home, tmp_path: Path) -> None:
    page, found = tmp_path / "page.html", evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)
    write_html(home, trained.training.training_id, page)
    images, mistakes = sum(row["images"] for row in found["classes"]), len(found["mistakes"])
    verdict = f"Right on {images - mistakes} of {images} test images"
    assert verdict in describe(found)[1]
    text = read_page(page).text.replace("\u00a0", " ")
    assert 0 < text.index(verdict) < text.index("Most confident mistakes")


def test_one_training_always_makes_the_same_page_and_charts(trained: Trained, home: Home, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(home, trained.training.training_id, tmp_path / name)
    for file in ("evaluation.html", "confusion.png", "reliability.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_command_loads_neither_torch_nor_prefect_nor_mlflow_nor_matplotlib(trained: Trained, home: Home) -> None:
    unwanted = "torch,torchvision,timm,prefect,mlflow,matplotlib,sklearn"
    printed = run_python(COMMAND, unwanted, "evaluate", "photos", "--home", home.root, "--json")
    assert json.loads(printed)["metrics"] == trained.training.metrics


def test_erased_images_are_no_longer_among_the_mistakes(trained: Trained, home: Home) -> None:
    erased, *others = evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)["mistakes"]
    erase_images(home, [erased["image_id"]], None, None, dry_run=False, yes=True)
    assert evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)["mistakes"] == others
    assert erased["image_id"] not in evaluation_path(home, trained.training.training_id).read_text()


def test_errors_name_the_cause_and_a_remedy(trained: Trained, home: Home, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="photos version 7: has no trained head"):
        evaluate_head(home, LabelSetName("photos"), ModelName("photos"), 7)
    with pytest.raises(TrainError, match="tulips: has no trained head"):
        evaluate_head(home, LabelSetName("tulips"), ModelName("tulips"), None)
    with pytest.raises(ExportError, match="Name another file"):
        write_html(home, trained.training.training_id, tmp_path)
    head_path(home, trained.training.training_id).unlink()
    with pytest.raises(TrainError, match="frostline train --name photos"):
        evaluate_head(home, LabelSetName("photos"), ModelName("photos"), None)


def test_without_a_head_the_command_says_how_to_train_one(
    frostline: Callable[..., CommandResult], tmp_path: Path
) -> None:
    refused(frostline(tmp_path, "evaluate", "photos"), "photos", "frostline run FOLDER")
    refused(frostline(tmp_path, "evaluate"), "source")


def test_the_documented_commands_evaluate_a_head_of_the_first_release(
    frostline: Callable[..., CommandResult], first: Home
) -> None:
    folder = first.root.rename(first.root.with_name(".frostline")).parent
    (block,) = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 4
    for name, *arguments in commands:
        assert name == "frostline"
        ran = frostline(folder, *arguments)
        assert ran.code == 0, ran.err
    metrics = ran.answer["metrics"]
    assert metrics["temperature"] == 1
    assert metrics["accuracy_low"] < metrics["accuracy"] == metrics["accuracy_high"] == 1
    assert (folder / "page.html").read_text().startswith("<!doctype html>")

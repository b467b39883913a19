"""Tails: layers fine-tuned on stored features, resumed after a kill, and stored in files."""

import dataclasses
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from flows.operations.doctor import examine
from flows.operations.maintain import plan_maintenance
from flows.settings import RunSettings
from storage.artifacts.checkpoints import load_checkpoint
from storage.errors import SettingsError, TrainError, WeightsError
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.progress import silent
from storage.recipe import Recipe
from storage.sources.open_image import folder_source
from storage.tables.features import commit_shard, read_features
from storage.tables.missing import FeatureRequest, list_missing
from storage.tables.recipes import save_recipe
from storage.tables.scans import commit_scan
from storage.tables.trainings import Training, checkpoint_folder, evaluation_path, head_path, list_split
from tasks.embed.decide_recipe import decide_recipe
from tasks.embed.pipeline import embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.cuts import open_tail
from tasks.encoder.backbone.weights import find_weights
from tasks.encoder.layers import open_layers
from tasks.encoder.pack import open_packed, pack_backbone
from tasks.heads.files import load_head
from tasks.heads.heads import Head, Tail
from tasks.heads.load import read_head
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tasks.train.fit.examples import Examples
from tasks.train.fit.tail import TailSchedule, fit_tail
from tasks.train.report.stored_evaluation import read_evaluation
from tasks.train.settings import TailSettings, TrainSettings
from tasks.train.train import TrainingData, train_head
from tests.encoder.test_cuts import build
from tests.encoder.test_cuts import one_thread as one_thread  # noqa: PLC0414 - a fixture
from tests.pictures import write_folder

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = timedelta(days=9999)
TAIL = TrainSettings(heads=("tail",), l2=(0.1,), tail=TailSettings(epochs=3, batch=8))

AGAIN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from storage.locations.home import Home
from tasks.train.settings import TrainSettings
from tasks.train.train import TrainingData, train_head

settings = TrainSettings.model_validate_json(sys.argv[3])
train_head(Home(Path(sys.argv[1])), TrainingData("photos", sys.argv[2]), settings, datetime.now(UTC))
"""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A home with features at a cut."""

    home: Home
    recipe: Recipe

    def train(self, settings: TrainSettings = TAIL) -> Training:
        return train_head(
            self.home, TrainingData(LabelSetName("photos"), self.recipe.recipe_id), settings, NOW
        ).training

    def copy(self, folder: Path) -> "Embedded":
        shutil.copytree(self.home.root, folder)
        return dataclasses.replace(self, home=Home(folder))


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Embedded]:
    """Embed 60 images at a cut of a small network with random weights."""
    folder = tmp_path_factory.mktemp("embedded")
    photos = write_folder(folder / "photos")
    save_weights(folder / "network.safetensors")

    def embed(**settings: str) -> Embedded:
        chosen = EmbedSettings.model_validate(
            {"backbone": "timm/test_resnet", "weights": str(folder / "network.safetensors"), "crop": 32, "resize": 32}
            | {"pooling": "flatten"}
            | settings
        )
        home = Home(folder / settings["cut"])
        weights = find_weights(home, chosen.backbone, chosen.weights)
        assert weights
        recipe = decide_recipe(chosen, weights)
        with open_lake(home) as lake:
            commit_scan(lake, scan(home, SourceName("photos"), photos, IngestSettings(), silent), NOW)
            save_recipe(lake, {}, recipe, NOW)
            items = list_missing(lake, FeatureRequest(recipe.recipe_id, SourceName("photos")), 1000)
            packed = home.backbones / recipe.recipe_id
            pack_backbone(recipe, weights, packed)
            commit_shard(
                lake,
                embed_shard(
                    home,
                    folder_source(SourceName("photos"), photos),
                    open_packed(packed, 8, "cpu", compiled=False),
                    items,
                    1,
                    lambda _: None,
                ),
                NOW,
            )
        return Embedded(home, recipe)

    return embed


def save_weights(path: Path) -> None:
    from safetensors.torch import save_file as save_tensors

    save_tensors(build("timm/test_resnet").state_dict(), path)


@pytest.fixture(scope="module")
def template(embed: Callable[..., Embedded]) -> Embedded:
    return embed(cut="layer2")


@pytest.fixture
def embedded(template: Embedded, tmp_path: Path) -> Embedded:
    """A copy, so that each test has its own home."""
    return template.copy(tmp_path / "home")


@pytest.fixture
def seen() -> Iterator[list[tuple[int, ...]]]:
    """The shapes of all inputs of convolutions."""
    shapes: list[tuple[int, ...]] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d):
            shapes.append(tuple(given[0].shape))

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    yield shapes
    hook.remove()


def read_tail(embedded: Embedded, training: Training) -> Tail:
    head = read_head(embedded.home, training, open_layers)
    assert isinstance(head, Tail)
    return head


def read_bytes(embedded: Embedded, training: Training) -> bytes:
    return head_path(embedded.home, training.training_id).read_bytes()


def list_candidates(embedded: Embedded, training: Training) -> list[dict[str, Any]]:
    with read_lake(embedded.home) as lake:
        found: list[dict[str, Any]] = read_evaluation(lake, embedded.home, training)["candidates"]
    return found


def list_statistics(arrays: Any) -> dict[str, Any]:  # noqa: ANN401 - arrays by name
    return {name: array for name, array in arrays.items() if "running" in name}


def test_a_tail_improves_on_its_pretrained_start(embedded: Embedded) -> None:
    training = embedded.train()
    trained, frozen = list_candidates(embedded, training)
    assert (frozen["learning_rate"], frozen["epoch"]) == (0, 0)
    assert (trained["learning_rate"], training.kind) == (1e-4, "tail")
    assert trained["epoch"] > 0
    assert trained["validation_log_loss"] < frozen["validation_log_loss"]
    before = open_tail(embedded.home.backbones / embedded.recipe.recipe_id).state()
    after = read_tail(embedded, training).layers.state()
    far = {name: float(np.abs(after[name] - before[name]).max()) for name in before}
    assert before.keys() == after.keys()
    assert 0 < max(far.values()) < 0.1
    assert not any(far[name] for name in list_statistics(far))


@pytest.mark.parametrize("batch_norms", [False, True])
def test_batch_norms_keep_their_statistics_by_default(template: Embedded, tmp_path: Path, *, batch_norms: bool) -> None:
    layers = open_tail(template.home.backbones / template.recipe.recipe_id)
    before = layers.state()
    random = np.random.default_rng(0)
    labels = np.arange(16) % 2
    rows = Examples(random.normal(size=(16, template.recipe.dim)).astype(np.float32), labels, np.full(16, 1 / 16))
    width = layers.width
    head = Head(("a", "b"), np.zeros(width), np.ones(width), np.zeros((width, 2)), np.zeros(2))
    plan = TailSchedule(TailSettings(epochs=1, batch=8, batch_norms=batch_norms), 1e-4, 0.1, 0, "cpu")
    fit_tail(layers, head, rows, rows, plan, tmp_path / "checkpoint")
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint
    moved = {name: (checkpoint.arrays[f"now.layers.{name}"] != array).any() for name, array in before.items()}
    statistics = {name for name in moved if "running" in name}
    assert statistics
    assert {bool(moved[name]) for name in statistics} == {batch_norms}
    assert any(moved[name] for name in moved.keys() - statistics)


def test_no_image_passes_through_the_frozen_layers(embedded: Embedded, seen: list[tuple[int, ...]]) -> None:
    training = embedded.train()
    read_tail(embedded, training)
    images = [shape for shape in seen if shape[0] > 2]  # two of noise prove the parts once each is opened
    assert images
    assert {shape[1] for shape in images if shape[1] == 3} == set()
    assert {shape[1:] for shape in seen if shape[1] == 3} == {(3, 32, 32)}


def test_the_seed_decides_the_bytes(embedded: Embedded, tmp_path: Path) -> None:
    one = read_bytes(embedded, embedded.train())
    other = embedded.copy(tmp_path / "other")
    with open_lake(other.home) as lake:
        lake.execute("DELETE FROM heads")
    assert read_bytes(other, other.train()) == one
    assert read_bytes(other, other.train(TAIL.model_copy(update={"seed": 1}))) != one


def test_a_killed_training_resumes_and_gives_the_same_bytes(
    embedded: Embedded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TAIL.model_copy(update={"tail": TailSettings(epochs=20, batch=8)})
    other = embedded.copy(tmp_path / "other")
    command = [sys.executable, "-c", AGAIN, str(other.home.root), other.recipe.recipe_id, settings.model_dump_json()]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (found := list(other.home.heads.glob("*/checkpoints/tail-*.safetensors"))) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0
    assert plan_maintenance(other.home, NEVER, timedelta(hours=1), datetime.now(UTC)).checkpoints == ()
    assert str(found[0]) in plan_maintenance(other.home, NEVER, timedelta(0), datetime.now(UTC)).checkpoints
    with caplog.at_level(logging.INFO, "tasks.train.fit.tail"):
        resumed = other.train(settings)
    (said,) = re.findall(r"resumed after epoch (\d+)", caplog.text)
    assert 0 < int(said) < 20
    assert found[0].parent == checkpoint_folder(other.home, resumed.training_id)
    assert not found[0].parent.exists()
    whole = embedded.train(settings)
    assert read_bytes(other, resumed) == read_bytes(embedded, whole)
    assert resumed.metrics == whole.metrics


def test_softmax_and_tail_compete_and_a_tail_survives_its_file(embedded: Embedded) -> None:
    training = embedded.train(TAIL.model_copy(update={"heads": ("softmax", "tail"), "l2": (0.1, 1.0)}))
    assert [each["head"] for each in list_candidates(embedded, training)].count("tail") == 2
    assert len(list_candidates(embedded, training)) == 4
    training = embedded.train()
    with read_lake(embedded.home) as lake:
        rows = list_split(lake, training.training_id, "test")
        features = read_features(lake, training.recipe_id, [image_id for image_id, _ in rows])
    head = read_tail(embedded, training)
    right = np.array(head.classes)[head.probabilities(features).argmax(axis=1)] == [name for _, name in rows]
    assert float(right.mean()) == training.metrics["accuracy"]
    assert head.temperature == training.metrics["temperature"]


def test_sgd_trains_and_a_diverging_training_keeps_the_start(embedded: Embedded) -> None:
    tail = TailSettings(epochs=2, batch=8, optimizer="sgd", learning_rates=(1e-3, 1e6))
    candidates = list_candidates(embedded, embedded.train(TAIL.model_copy(update={"tail": tail})))
    epochs = {each["learning_rate"]: each["epoch"] for each in candidates}
    assert epochs[1e-3] > 0
    assert epochs[1e6] == 0


def test_cut_input_stores_pixels_and_trains_the_whole_network(
    embed: Callable[..., Embedded], seen: list[tuple[int, ...]]
) -> None:
    embedded = embed(cut="input")
    assert (embedded.recipe.shape, embedded.recipe.dtype) == ((3, 32, 32), "float32")
    assert seen == []  # nothing was computed to store them
    training = embedded.train()
    with read_lake(embedded.home) as lake:
        (image_id, _), *_ = list_split(lake, training.training_id, "train")
        pixels = read_features(lake, training.recipe_id, [image_id]).reshape(3, 32, 32)
    mean, std = (
        np.array(each)[:, None, None] for each in (embedded.recipe.transform.mean, embedded.recipe.transform.std)
    )
    levels = (pixels * std + mean) * 255
    np.testing.assert_allclose(levels, levels.round(), atol=0.1)
    before = open_tail(embedded.home.backbones / embedded.recipe.recipe_id).state()
    after = read_tail(embedded, training).layers.state()
    assert list_candidates(embedded, training)[0]["epoch"] > 0
    first = next(iter(before))
    assert before[first].shape[1] == 3
    assert (before[first] != after[first]).any()


def test_the_doctor_retrains_a_lost_tail(embedded: Embedded) -> None:
    training = embedded.train()
    before = read_bytes(embedded, training)
    head_path(embedded.home, training.training_id).unlink()
    outcomes = examine(embedded.home, NOW, repair=True)
    assert "head" in [outcome.finding.check for outcome in outcomes if outcome.repaired]
    assert read_bytes(embedded, training) == before


def test_the_device_is_not_part_of_the_identity(embedded: Embedded) -> None:
    training = embedded.train()
    assert embedded.train(TAIL.model_copy(update={"device": "cuda"})).training_id == training.training_id


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(embedded: Embedded) -> None:
    with pytest.raises(SettingsError, match=r"--train\.device cpu"):
        embedded.train(TAIL.model_copy(update={"device": "cuda"}))


@pytest.mark.parametrize("embed", [{}, {"cut": "layer4"}, {"pooling": "flatten"}])
def test_a_tail_on_pooled_features_is_refused_before_embedding(embed: dict[str, str]) -> None:
    settings = RunSettings.model_validate({"train": {"heads": ["tail"]}, "embed": embed})
    with pytest.raises(SettingsError, match=r"--embed\.pooling flatten and a cut before avgpool"):
        settings.check()


def test_a_tail_without_its_backbone_or_with_an_unknown_opener_is_refused(embedded: Embedded, tmp_path: Path) -> None:
    training = embedded.train()
    path, packed = head_path(embedded.home, training.training_id), embedded.home.backbones / training.recipe_id
    with pytest.raises(TrainError, match="backbone"):
        load_head(path)
    with pytest.raises(WeightsError, match="not in this home"):
        load_head(path, tmp_path / "elsewhere", open_layers)
    save_file(load_file(path), tmp_path / "planted", {"tail": '{"classes": ["a", "b"], "opener": "os:system"}'})
    with pytest.raises(TrainError, match="layers of an unknown kind"):
        load_head(tmp_path / "planted", packed, open_layers)
    assert evaluation_path(embedded.home, training.training_id).is_file()

"""The gate: a version becomes champion if it is the first, or better on the same test images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.tables.features import commit_shard
from storage.tables.trainings import Training, head_path, save_training
from storage.vectors.feature_file import Shard, write_features
from tasks.heads.files import load_head, save_head
from tasks.heads.heads import Head
from tasks.register.gate.compare import compare_with_champion

Run = Callable[..., dict[str, Any]]
Rows = Sequence[tuple[int, str, str]]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("cat", "dog")
TEST = [(0, "cat", "test"), (1, "dog", "test"), (2, "cat", "test"), (3, "dog", "test")]
GOOD, CRUDE, BAD = 9.0, 1.0, -1.0
WEAK, MIDDLE, STRONG = ({"l2": (value,)} for value in (1e-3, 1.0, 100.0))


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """A lake of eight images: image n is a cat with the feature +1 if n is even, else a dog with -1."""
    with open_lake(Home(tmp_path)) as opened:
        embed(opened, "recipe", range(8))
        yield opened


def embed(lake: Lake, recipe_id: str, images: Sequence[int]) -> None:
    vectors = np.array([[1.0 if number % 2 == 0 else -1.0] for number in images], np.float32)
    file = write_features(lake.home, recipe_id, [image(number) for number in images], vectors)
    commit_shard(lake, Shard(recipe_id, SourceName("photos"), file, (), len(images), 1.0), NOW)


def image(number: int) -> str:
    return str(UUID(int=number))


def train(lake: Lake, name: str, scale: float, rows: Rows = TEST, recipe_id: str = "recipe") -> Training:
    """Record a head whose logit for a cat is ``scale`` times the feature."""
    one = np.array([1.0])
    head = Head(CLASSES, np.array([0.0]), one, np.array([[scale, 0.0]]), np.zeros(2))
    training = Training(name, LabelSetName("photos"), recipe_id, 1, {}, "softmax", {})
    save_head(head, head_path(lake.home, name))
    image_ids, names, splits = zip(*((image(number), label, split) for number, label, split in rows), strict=True)
    save_training(lake, training, pa.table({"image_id": image_ids, "class": names, "split": splits}), NOW)
    return training


def test_the_first_version_becomes_champion(lake: Lake) -> None:
    verdict = compare_with_champion(lake.home, lake, train(lake, "new", BAD), None)
    assert (verdict.promoted, verdict.reason) == (True, "first")


def test_the_champion_stays_champion(lake: Lake) -> None:
    assert compare_with_champion(lake.home, lake, train(lake, "old", CRUDE), "old").promoted


def test_a_version_with_a_higher_accuracy_passes_with_the_reason(lake: Lake) -> None:
    train(lake, "old", BAD)
    verdict = compare_with_champion(lake.home, lake, train(lake, "new", CRUDE), "old")
    assert verdict.promoted
    assert verdict.reason.startswith("better: accuracy 1.0000 against 0.0000")
    assert verdict.reason.endswith("4 images")


def test_a_version_with_a_lower_accuracy_does_not_pass(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    verdict = compare_with_champion(lake.home, lake, train(lake, "new", BAD), "old")
    assert not verdict.promoted
    assert verdict.reason.startswith("not better: accuracy 0.0000 against 1.0000")


@pytest.mark.parametrize(("old", "new", "promoted"), [(CRUDE, GOOD, True), (GOOD, CRUDE, False), (GOOD, GOOD, False)])
def test_at_the_same_accuracy_the_lower_log_loss_wins(lake: Lake, old: float, new: float, promoted: bool) -> None:
    train(lake, "old", old)
    assert compare_with_champion(lake.home, lake, train(lake, "new", new), "old").promoted == promoted


def test_images_that_the_champion_was_trained_on_do_not_count(lake: Lake) -> None:
    train(lake, "old", CRUDE, [(0, "cat", "train"), (1, "dog", "validation"), (2, "cat", "test"), (3, "dog", "test")])
    assert compare_with_champion(lake.home, lake, train(lake, "new", GOOD), "old").reason.endswith("2 images")


def test_images_without_a_feature_of_the_champion_do_not_count(lake: Lake) -> None:
    embed(lake, "other", [0, 1, 2])
    train(lake, "old", CRUDE, TEST[:3], "other")
    assert compare_with_champion(lake.home, lake, train(lake, "new", GOOD), "old").reason.endswith("3 images")


def test_a_class_that_the_champion_does_not_know_counts_against_it(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    relabelled = [(number, {"dog": "wolf"}.get(name, name), split) for number, name, split in TEST]
    verdict = compare_with_champion(lake.home, lake, train(lake, "new", GOOD, relabelled), "old")
    assert "against 0.5000" in verdict.reason


def test_without_shared_test_images_the_champion_stays(lake: Lake) -> None:
    train(lake, "old", BAD, [(number, name, "train") for number, name, _ in TEST])
    assert not compare_with_champion(lake.home, lake, train(lake, "new", GOOD), "old").promoted


@pytest.mark.parametrize("champion_id", ["a training of another lake", ""], ids=["another lake's", "not Frostline's"])
def test_a_champion_that_cannot_be_measured_stays(lake: Lake, champion_id: str) -> None:
    assert not compare_with_champion(lake.home, lake, train(lake, "new", GOOD), champion_id).promoted


BOTH = [(0, "cat", "test"), (0, "dog", "test"), (1, "dog", "test"), (2, "cat", "test")]


def train_labels(lake: Lake, name: str, scale: float) -> Training:
    """Record a multi-label head whose logit for a cat is ``scale`` times the feature."""
    training = train(lake, name, scale, BOTH)
    head = load_head(head_path(lake.home, name))
    assert isinstance(head, Head)
    save_head(replace(head, thresholds=(0.5, 0.5)), head_path(lake.home, name))
    return training


def test_multi_label_heads_are_compared_by_mean_average_precision(lake: Lake) -> None:
    old, new = train_labels(lake, "old", BAD), train_labels(lake, "new", CRUDE)
    verdict = compare_with_champion(lake.home, lake, new, "old")
    assert verdict.promoted
    assert verdict.reason.startswith("better: mAP 0.8333 against 0.6667, log loss")
    assert verdict.reason.endswith("3 images")
    assert not compare_with_champion(lake.home, lake, old, "new").promoted


def test_a_multi_label_head_is_not_compared_with_a_single_label_head(lake: Lake) -> None:
    train(lake, "old", BAD)
    verdict = compare_with_champion(lake.home, lake, train_labels(lake, "new", CRUDE), "old")
    assert not verdict.promoted
    assert verdict.reason == "one head gives a single class, the other several labels: compare by hand"


def test_a_worse_version_is_registered_without_the_alias_and_a_person_may_give_it_the_alias(
    run: Run, home: Path
) -> None:
    first, worse = run(train=WEAK), run(train=STRONG)
    assert (first["model"]["version"], first["model"]["alias"], first["model"]["gate"]) == (1, "champion", "first")
    assert (worse["model"]["version"], worse["model"]["alias"]) == (2, None)
    client = client_of(home)
    assert worse["model"]["gate"].startswith("not better")
    assert client.get_model_version("photos", "2").tags["gate"] == worse["model"]["gate"]
    assert champion(home) == "1"
    client.set_registered_model_alias("photos", "champion", "2")
    assert run(train=WEAK)["model"]["alias"] is None  # registered before, so it is not compared
    assert champion(home) == "2"
    assert run(train=MIDDLE)["model"]["gate"].startswith("better")  # than version 2, though worse than version 1
    assert champion(home) == "3"


def client_of(home: Path) -> MlflowClient:
    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    return MlflowClient(uri, uri)


def champion(home: Path) -> str:
    return str(client_of(home).get_model_version_by_alias("photos", "champion").version)

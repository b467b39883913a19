"""The gate: a version becomes champion if it is the first, or if a paired test shows that it is better."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
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
from tasks.register.gate.compare import GateDecision, compare_with_champion
from tasks.register.gate.paired import compare_accuracies
from tasks.register.settings import GateSettings

Run = Callable[..., dict[str, Any]]
Rows = Sequence[tuple[int, str, str]]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("cat", "dog")
TEST = [(number, CLASSES[number % 2], "test") for number in range(8)]
OLD_CLASSES_AND_WOLVES = [*TEST[:2], (3, "dog", "test"), (5, "dog", "test"), *((n, "wolf", "test") for n in (2, 4, 6))]
INSERT_LABEL = "INSERT INTO labels VALUES (?, ?::UUID, ?, ?, ?)"
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


def label(lake: Lake, names: dict[int, str]) -> None:
    """Give images a class in the label set."""
    for number, name in names.items():
        row = ["photos", image(number), name, "photos", NOW]
        lake.commit(partial(lake.execute, INSERT_LABEL, row))


def train(
    lake: Lake,
    name: str,
    scale: float,
    rows: Rows = TEST,
    recipe_id: str = "recipe",
    classes: tuple[str, ...] = CLASSES,
) -> Training:
    """Record a head whose logit for its first class is ``scale`` times the feature."""
    one = np.array([1.0])
    weights = np.array([[scale, *(0.0 for _ in classes[1:])]])
    head = Head(classes, np.array([0.0]), one, weights, np.zeros(len(classes)))
    training = Training(name, LabelSetName("photos"), recipe_id, 1, {}, "softmax", {})
    save_head(head, head_path(lake.home, name))
    image_ids, names, splits = zip(*((image(number), label, split) for number, label, split in rows), strict=True)
    save_training(lake, training, pa.table({"image_id": image_ids, "class": names, "split": splits}), NOW)
    return training


def compare(lake: Lake, training: Training, champion_id: str | None, **settings: Any) -> GateDecision:  # noqa: ANN401 - of several types
    """Compare under the default settings, but on as few images as there are."""
    return compare_with_champion(
        lake.home, lake, training, champion_id, GateSettings.model_validate({"min_images": 1, **settings})
    )


def test_the_first_version_becomes_champion(lake: Lake) -> None:
    decision = compare(lake, train(lake, "new", BAD), None)
    assert (decision.promoted, decision.reason) == (True, "first")


def test_a_first_version_says_if_it_was_measured_on_few_images(lake: Lake) -> None:
    decision = compare(lake, train(lake, "new", BAD), None, min_images=50)
    assert (decision.promoted, decision.reason) == (True, "first, measured on only 8 test images")


def test_the_champion_stays_champion(lake: Lake) -> None:
    assert compare(lake, train(lake, "old", CRUDE), "old").promoted


def test_a_version_that_is_clearly_better_passes_with_the_reason(lake: Lake) -> None:
    train(lake, "old", BAD)
    decision = compare(lake, train(lake, "new", CRUDE), "old")
    assert decision.promoted
    assert decision.reason == (
        "better: accuracy 1.0000 against 0.0000 on 8 images, "
        "difference +100.0 points (90 % interval +49.5 to +100.0), p = 0.0039"
    )
    assert dict(decision.rows) == {image(number): name for number, name, _ in TEST}


def test_a_version_that_is_clearly_worse_does_not_pass(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    decision = compare(lake, train(lake, "new", BAD), "old")
    assert not decision.promoted
    assert decision.reason.startswith("worse: accuracy 0.0000 against 1.0000")


def test_a_difference_that_may_be_chance_does_not_pass(lake: Lake) -> None:
    train(lake, "old", BAD)
    decision = compare(lake, train(lake, "new", CRUDE, TEST[:4]), "old", confidence=0.97)
    assert not decision.promoted
    assert decision.reason.startswith("not worse: accuracy 1.0000 against 0.0000 on 4 images")


@pytest.mark.parametrize(("promote", "promoted"), [("better", False), ("not-worse", True)])
def test_a_version_that_is_not_worse_passes_only_if_the_settings_say_so(
    lake: Lake, promote: str, promoted: bool
) -> None:
    train(lake, "old", CRUDE)
    decision = compare(lake, train(lake, "new", GOOD), "old", promote=promote, margin=0.5)
    assert decision.promoted == promoted
    assert decision.reason.startswith("not worse: accuracy 1.0000 against 1.0000")


def test_equal_versions_on_few_images_are_not_called_not_worse(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    decision = compare(lake, train(lake, "new", GOOD), "old", promote="not-worse")
    assert not decision.promoted
    assert decision.reason.startswith("no clear difference")


def test_too_few_images_decide_nothing(lake: Lake) -> None:
    train(lake, "old", BAD)
    decision = compare(lake, train(lake, "new", CRUDE), "old", min_images=9)
    assert not decision.promoted
    assert decision.reason.startswith("too few images: 8 that neither model was trained on, 9 are needed")


def test_images_that_either_was_trained_on_do_not_count(lake: Lake) -> None:
    train(lake, "old", CRUDE, [(0, "cat", "train"), (1, "dog", "validation"), *TEST[2:]])
    new = train(lake, "new", GOOD, [*TEST[:7], (7, "dog", "train")])
    assert "on 5 images" in compare(lake, new, "old").reason


def test_test_images_of_the_champion_count_with_their_present_class(lake: Lake) -> None:
    label(lake, {4: "cat", 5: "cat"})  # 5 was a dog when the champion was trained; 6 and 7 are gone
    train(lake, "old", CRUDE)
    decision = compare(lake, train(lake, "new", GOOD, TEST[:4]), "old")
    assert dict(decision.rows) == {image(number): TEST[number][1] for number in range(5)} | {image(5): "cat"}


def test_images_without_a_feature_of_the_champion_do_not_count(lake: Lake) -> None:
    embed(lake, "other", [0, 1, 2])
    train(lake, "old", CRUDE, TEST[:3], "other")
    assert "on 3 images" in compare(lake, train(lake, "new", GOOD), "old").reason


def test_a_version_that_lacks_a_class_of_the_champion_never_passes(lake: Lake) -> None:
    train(lake, "old", BAD)
    rows = [(number, "cat", "test") for number in range(0, 8, 2)]
    decision = compare(lake, train(lake, "new", GOOD, rows, classes=("cat",)), "old", promote="not-worse", margin=0.99)
    assert not decision.promoted
    assert decision.reason == "lacks 1 class of the champion (dog): compare by hand"


def test_a_new_class_counts_against_a_champion_that_does_not_know_it(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    rows = [(number, {"dog": "wolf"}.get(name, name), split) for number, name, split in TEST]
    decision = compare(lake, train(lake, "new", GOOD, rows, classes=("cat", "wolf", "dog")), "old", confidence=0.9)
    assert decision.promoted
    assert "accuracy 1.0000 against 0.5000" in decision.reason


def test_a_new_class_does_not_pay_for_losses_on_the_classes_of_the_champion(lake: Lake) -> None:
    train(lake, "old", CRUDE, OLD_CLASSES_AND_WOLVES[:4])
    new = train(lake, "new", GOOD, OLD_CLASSES_AND_WOLVES, classes=("wolf", "dog", "cat"))
    decision = compare(lake, new, "old", confidence=0.5)
    assert not decision.promoted
    assert decision.reason.startswith("worse")


def test_without_shared_test_images_the_champion_stays(lake: Lake) -> None:
    train(lake, "old", BAD, [(number, name, "train") for number, name, _ in TEST])
    assert not compare(lake, train(lake, "new", GOOD), "old").promoted


@pytest.mark.parametrize("champion_id", ["a training of another lake", ""], ids=["another lake's", "not Frostline's"])
def test_a_champion_that_cannot_be_measured_stays(lake: Lake, champion_id: str) -> None:
    assert not compare(lake, train(lake, "new", GOOD), champion_id).promoted


def test_a_refusal_counts_as_an_error(lake: Lake) -> None:
    train(lake, "old", CRUDE)
    new = train(lake, "new", CRUDE)
    head = load_head(head_path(lake.home, "new"))
    assert isinstance(head, Head)
    save_head(replace(head, refuse_below=0.99), head_path(lake.home, "new"))
    decision = compare(lake, new, "old")
    assert not decision.promoted
    assert decision.reason.startswith("worse: accuracy 0.0000 against 1.0000")
    assert decision.reason.endswith("refuses 8 against 0")


BOTH = [(number, name, "test") for number in range(0, 8, 4) for name in CLASSES] + [
    (number, name, "test") for number, name, _ in TEST if number % 4
]


def train_labels(lake: Lake, name: str, scale: float) -> Training:
    """Record a multi-label head whose logit for a cat is ``scale`` times the feature."""
    training = train(lake, name, scale, BOTH)
    head = load_head(head_path(lake.home, name))
    assert isinstance(head, Head)
    save_head(replace(head, thresholds=(0.5, 0.5)), head_path(lake.home, name))
    return training


def test_multi_label_heads_are_compared_by_mean_average_precision(lake: Lake) -> None:
    old, new = train_labels(lake, "old", BAD), train_labels(lake, "new", CRUDE)
    decision = compare(lake, new, "old")
    assert decision.promoted
    assert decision.reason.startswith("better: mAP 0.8750 against 0.6250 on 8 images, difference +25.0 points")
    assert compare(lake, old, "new").reason.startswith("worse: mAP")


def test_a_multi_label_head_is_not_compared_with_a_single_label_head(lake: Lake) -> None:
    train(lake, "old", BAD)
    decision = compare(lake, train_labels(lake, "new", CRUDE), "old")
    assert not decision.promoted
    assert decision.reason == "one head gives a single class, the other several labels: compare by hand"


def simulate(rounds: int, images: int, gains: float, losses: float) -> float:
    """Return the share of rounds in which a challenger passes that is right where the champion is not with a
    probability of ``gains``, and wrong where the champion is right with one of ``losses``."""
    draw = np.random.default_rng(0)
    passed = 0
    for _ in range(rounds):
        luck, right = draw.random(images), draw.random(images) < 0.7
        new = np.where(right, luck >= losses / 0.7, luck < gains / 0.3)
        passed += compare_accuracies(new, right, 0.95).p <= 0.05
    return passed / rounds


def test_equal_challengers_are_promoted_at_most_as_often_as_the_error_rate_says() -> None:
    for images in (50, 300):
        assert simulate(1000, images, gains=0.06, losses=0.06) <= 0.05 + 0.014  # two standard errors of the simulation


def test_a_challenger_that_is_five_points_better_on_300_images_is_nearly_always_promoted() -> None:
    assert simulate(1000, 300, gains=0.06, losses=0.01) > 0.95


def test_the_interval_of_a_difference_covers_it() -> None:
    draw, covered, rounds = np.random.default_rng(0), 0, 1000
    for _ in range(rounds):
        luck, right = draw.random(100), draw.random(100) < 0.7
        new = np.where(right, luck >= 0.05 / 0.7, luck < 0.1 / 0.3)
        comparison = compare_accuracies(new, right, 0.95)
        covered += comparison.low <= 0.05 <= comparison.high
    assert 0.87 < covered / rounds < 0.93


def test_a_version_that_does_not_pass_is_registered_without_the_alias_and_a_person_may_give_it_the_alias(
    run: Run, home: Path
) -> None:
    first, second = run(train=WEAK), run(train=STRONG)
    assert (first["model"]["version"], first["model"]["alias"]) == (1, "champion")
    assert re.fullmatch(r"first, measured on only \d+ test images", first["model"]["gate"])
    assert (second["model"]["version"], second["model"]["alias"]) == (2, None)
    client = client_of(home)
    assert re.match(r"too few images: \d+ that neither model was trained on, 50 are needed", second["model"]["gate"])
    assert client.get_model_version("photos", "2").tags["gate"] == second["model"]["gate"]
    assert champion(home) == "1"
    client.set_registered_model_alias("photos", "champion", "2")
    assert run(train=WEAK)["model"]["alias"] is None  # registered before, so it is not compared
    assert champion(home) == "2"
    lenient = {"gate": {"min_images": 1, "promote": "not-worse", "margin": 0.99}}
    assert run(train=MIDDLE, registry=lenient)["model"]["gate"].startswith("not worse: accuracy ")
    assert champion(home) == "3"


def client_of(home: Path) -> MlflowClient:
    uri = f"sqlite:///{home}/mlflow/mlflow.db"
    return MlflowClient(uri, uri)


def champion(home: Path) -> str:
    return str(client_of(home).get_model_version_by_alias("photos", "champion").version)

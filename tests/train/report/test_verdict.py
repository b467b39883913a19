"""The verdict: sentences that are true of few images and of many."""

from typing import Any

import numpy as np
import pytest

from storage.plural import pluralize
from tasks.statistics.shares import find_wilson_interval
from tasks.train.measure.evaluate import tabulate_classes
from tasks.train.report.metrics import describe_metrics
from tasks.train.report.verdict import find_weakest_class, list_confusions, reach_verdict
from tasks.train.report.wording import interval, percent


def evaluation(confusion: list[list[int]], *, several_labels: bool = False) -> dict[str, Any]:
    """Make an evaluation of classes "a", "b" and so on from a confusion matrix."""
    counts = np.array(confusion)
    images, right = int(counts.sum()), int(np.trace(counts))
    low, high = map(float, find_wilson_interval(right, images))
    names = "abcdefgh"[: len(counts)]
    return {
        "metrics": {"accuracy": right / images, "accuracy_low": low, "accuracy_high": high},
        "classes": tabulate_classes(names, np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)),
        "confusion": [] if several_labels else confusion,
        "reliability": {} if several_labels else {"after": [{"images": images}]},
        "images": {"train": 0, "validation": 0, "test": images},
    }


@pytest.mark.parametrize(
    ("confusion", "summary"),
    [
        ([[48, 2], [4, 46]], "Right on 94 of 100 test images (accuracy 94 %, 95 % interval 88 to 97 %)."),
        ([[1, 0], [0, 1]], "Right on all 2 test images (accuracy 100 %, 95 % interval 34 to 100 %)."),
        ([[0, 1], [2, 0]], "Right on none of 3 test images (accuracy 0 %, 95 % interval 0 to 56 %)."),
        ([[0, 1], [0, 0]], "Right on 0 of 1 test image (accuracy 0 %, 95 % interval 0 to 79 %)."),
        (
            [[49_990, 10], [0, 50_000]],
            "Right on 99,990 of 100,000 test images (accuracy 99.99 %, 95 % interval 99.98 to 99.99 %).",
        ),
        (
            [[3000, 1000], [1000, 3000]],
            "Right on 6,000 of 8,000 test images (accuracy 75.0 %, 95 % interval 74.0 to 75.9 %).",
        ),
    ],
)
def test_the_summary_counts_images_and_gives_the_interval(confusion: list[list[int]], summary: str) -> None:
    assert reach_verdict("photos", evaluation(confusion)).summary == summary


def test_the_basis_names_images_and_classes() -> None:
    basis = reach_verdict("photos", evaluation([[48, 2], [4, 46]])).basis
    assert basis == "Measured on 100 images of 2 classes. The head was not trained on any of them."


def test_the_weakest_class_is_not_the_one_with_a_single_unlucky_image() -> None:
    several = evaluation([[50, 0, 0], [20, 30, 0], [1, 0, 0]])
    weakest = find_weakest_class(several)
    assert weakest
    assert weakest["class"] == "b"
    assert reach_verdict("photos", several).weakest_class == (
        'Weakest class: "b", right on 30 of 50 images (recall 60 %, 95 % interval 46 to 72 %), '
        'most often mistaken for "a".'
    )


def test_even_classes_have_no_weakest() -> None:
    assert reach_verdict("photos", evaluation([[10, 0], [0, 10]])).weakest_class == ""
    assert reach_verdict("photos", evaluation([[5, 5], [5, 5]])).weakest_class == ""


def test_the_next_steps_follow_from_what_was_measured() -> None:
    few = reach_verdict("my photos", evaluation([[3, 1], [0, 4]])).next_steps
    assert few[0] == "Label more images: the interval is 45 percentage points wide."
    assert "`frostline review --name 'my photos'`" in few[1]
    clear = reach_verdict("photos", evaluation([[990, 10], [300, 700]])).next_steps
    assert [step.split(":")[0] for step in clear] == ["Look at the most confident mistakes", 'Add images of "b"']
    poor = reach_verdict("photos", evaluation([[200, 800], [800, 200]])).next_steps
    assert poor[0] == "Try another backbone or cut: the head is wrong more often than right."
    (perfect,) = reach_verdict("photos", evaluation([[500, 0], [0, 500]])).next_steps
    assert perfect.startswith("Nothing stands out.")


def test_a_head_that_gives_several_labels_is_described_by_labels() -> None:
    verdict = reach_verdict("photos", evaluation([[48, 2], [4, 46]], several_labels=True))
    assert verdict.summary.startswith("Every label right on 94 of 100 test images")
    assert "of 2 labels" in verdict.basis
    assert verdict.weakest_class.startswith('Weakest label: "b"')
    assert "frostline review" not in " ".join(verdict.next_steps)  # which refuses such label sets


def test_confusions_are_listed_most_frequent_first() -> None:
    pairs = [(row["label"], row["predicted"], row["images"]) for row in list_confusions(evaluation([[5, 1], [3, 5]]))]
    assert pairs == [("b", "a", 3), ("a", "b", 1)]


@pytest.mark.parametrize(
    ("share", "images", "text"),
    [
        (0.94, 100, "94 %"),
        (0.943, 1000, "94.3 %"),
        (1.0, 5, "100 %"),
        (0.0, 5, "0 %"),
        (0.997, 300, "99.7 %"),
        (0.0004, 300, "0.04 %"),
        (1 - 1e-12, 10, "100.000000 %"),
    ],
)
def test_a_percentage_is_as_precise_as_its_number_of_images(share: float, images: int, text: str) -> None:
    assert percent(share, images) == text


def test_intervals_and_counts_are_worded() -> None:
    assert interval(0.88, 0.97, 100) == "88 to 97 %"
    assert [pluralize(number, "class", "classes") for number in (1, 1200)] == ["1 class", "1,200 classes"]


def test_metrics_are_percentages_with_a_meaning_but_log_loss_is_in_nats() -> None:
    metrics = {"log_loss": 0.21349, "log_loss_low": 0.1, "log_loss_high": 0.3, "cv_accuracy": 0.9}
    found = evaluation([[48, 2], [4, 46]])
    accuracy, loss = describe_metrics({**found, "metrics": {**found["metrics"], **metrics}})
    assert (accuracy["name"], accuracy["value"], accuracy["ends"]) == ("Accuracy", "94 %", "88 to 97 %")
    assert (loss["name"], loss["value"], loss["ends"]) == ("Log loss", "0.213", "0.100 to 0.300")
    assert accuracy["meaning"]
    assert "nats" in loss["meaning"]

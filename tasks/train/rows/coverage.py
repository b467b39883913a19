"""Coverage: whether each class has enough images to train, choose and measure with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from storage.errors import TrainError
from tasks.heads.answers import NEITHER
from tasks.train.rows.splits import SPLITS, Row, Split, assign_split
from tasks.train.settings import TrainSettings


@dataclass(frozen=True)
class Coverage:
    """How many images of each class, and of all, fall into each split, and what is thin about it, in words."""

    counts: Mapping[str, Mapping[str, int]]
    images: Mapping[str, int]
    warnings: tuple[str, ...]


def check_splits(rows: Sequence[Row], settings: TrainSettings, places: Mapping[str, Split] | None = None) -> Coverage:
    """Count what each class has to train, choose and measure with; ``places`` are by default the splits of ids.

    Raises:
        TrainError: with fewer than two classes; where a class has no image to train on, or none in validation and test
            together, so that it cannot be trained or measured at all; where a whole split is empty; where what the
            settings ask for asks more of the labels than they have.
    """
    if places is None:
        places = {image_id: assign_split(image_id, settings) for image_id, _ in rows}
    counted = Counter((name, places[image_id]) for image_id, name in rows)
    classes = sorted({name for _, name in rows})
    if len(classes) < 2:  # noqa: PLR2004 - a choice needs two
        found = f"1 class ({classes[0]})" if classes else "no class"
        raise TrainError(
            f"{len(places)} labelled images of {found}", "a head needs two classes", "Put images into class folders"
        )
    counts = {name: {str(split): counted[name, split] for split in SPLITS} for name in classes}
    images = {str(split): sum(place == split for place in places.values()) for split in SPLITS}
    _refuse(counts)
    if settings.multi_label:
        _refuse_everywhere(counts, images["train"])
    if settings.false_accept is not None:
        check_unknown({name: row["train"] for name, row in counts.items()}, settings.false_accept)
    return Coverage(counts, images, warn_thin(counts))


def warn_thin(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Say which classes have no image in some split."""
    return tuple(
        f"class {name} has {sum(row.values())} images and none in {split}: add images of it"
        for name, row in counts.items()
        for split in SPLITS
        if not row[split]
    )


def warn_bridges(images: int) -> tuple[str, ...]:
    """Say how many images were left out because they belong into several splits."""
    words = f"{images} images are of groups, or near-duplicates of images, in several splits: left out, look at them"
    return (words,) if images else ()


def _refuse_everywhere(counts: Mapping[str, Mapping[str, int]], images: int) -> None:
    for name, row in counts.items():
        if row["train"] == images:
            remedy = "Add images without it, or leave it out with --train.leave-out"
            raise TrainError(
                f"label {name}", f"is on all {images} images to train on, so that nothing tells it", remedy
            )


def _refuse(counts: Mapping[str, Mapping[str, int]]) -> None:
    remedy = "Add images of it, or leave it out with --train.leave-out"
    for name, row in counts.items():
        total = f"class {name} with {sum(row.values())} images"
        if not row["train"]:
            raise TrainError(total, "has none to train on", remedy)
        if not row["validation"] and not row["test"]:
            raise TrainError(total, "has none to measure on", remedy)
    for split in SPLITS:
        if not any(row[split] for row in counts.values()):
            total = f"{sum(sum(row.values()) for row in counts.values())} labelled images"
            raise TrainError(total, f"leave none in {split}", f"Add images, or raise --train.{split}")


FEWEST = 3
"""Classes: without one of them, two are left to choose from."""


def check_unknown(images: Mapping[str, int], rate: float) -> None:
    """Refuse classes from which no threshold can be chosen; ``images`` are those of each to train on.

    Raises:
        TrainError: where a class is called "neither", where there are fewer than three, or too few images for the rate.
    """
    asked, count = f"false_accept {rate:g}", sum(images.values())
    if NEITHER in images:
        rule = f"is what images of no class are called under {asked}"
        raise TrainError(f"class {NEITHER}", rule, "Rename its folder, or leave it out with --train.leave-out")
    if len(images) < FEWEST:
        rule = f"needs {FEWEST} classes to leave each out in turn, and there are {len(images)}"
        raise TrainError(asked, rule, "Add a class, or leave out --train.false-accept")
    if find_rank(count, rate) > count:
        rule = f"needs {ceil(1 / Fraction(str(rate))) - 1} images to train on, and there are {count}"
        raise TrainError(asked, rule, "Add images, or raise --train.false-accept")


def find_rank(images: int, rate: float) -> int:
    """Give k: of so many probabilities, the k-th smallest is exceeded by one more with at most the rate's chance."""
    return ceil((images + 1) * (1 - Fraction(str(rate))))

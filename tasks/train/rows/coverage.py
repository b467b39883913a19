"""Coverage: whether each class has enough images in each split."""

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
    """The number of images in each split, by class and in total, and warnings about classes with too few."""

    counts: Mapping[str, Mapping[str, int]]
    images: Mapping[str, int]
    warnings: tuple[str, ...]


def check_coverage(rows: Sequence[Row], settings: TrainSettings, splits: Mapping[str, Split] | None = None) -> Coverage:
    """Count the images of each class in each split; ``splits`` defaults to those by image id.

    Raises:
        TrainError: if there are fewer than two classes; if a class has no training image, or none in validation and
            test; if a whole split is empty; if the settings need more labels than there are.
    """
    if splits is None:
        splits = {image_id: assign_split(image_id, settings) for image_id, _ in rows}
    counted = Counter((name, splits[image_id]) for image_id, name in rows)
    classes = sorted({name for _, name in rows})
    if len(classes) < 2:  # noqa: PLR2004 - a choice needs two
        number = f"1 class ({classes[0]})" if classes else "no class"
        raise TrainError(
            f"{len(splits)} labelled images of {number}", "a head needs two classes", "Put images into class folders"
        )
    counts = {name: {str(split): counted[name, split] for split in SPLITS} for name in classes}
    images = {str(split): sum(other == split for other in splits.values()) for split in SPLITS}
    _check_splits(counts)
    if settings.multi_label:
        _check_labels_vary(counts, images["train"])
    if settings.false_accept is not None:
        check_false_accept({name: row["train"] for name, row in counts.items()}, settings.false_accept)
    return Coverage(counts, images, warn_thin(counts))


def warn_thin(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Warn about classes without an image in some split."""
    return tuple(
        f"class {name} has {sum(row.values())} images and none in {split}: add images of it"
        for name, row in counts.items()
        for split in SPLITS
        if not row[split]
    )


def warn_bridges(images: int) -> tuple[str, ...]:
    """Warn about images that were left out because they belong to several splits."""
    words = f"{images} images were left out because their groups or near-duplicates are in several splits"
    return (words,) if images else ()


def _check_labels_vary(counts: Mapping[str, Mapping[str, int]], images: int) -> None:
    for name, row in counts.items():
        if row["train"] == images:
            remedy = "Add images without it, or leave it out with --train.leave-out"
            raise TrainError(
                f"label {name}", f"is on all {images} training images, so that it cannot be learned", remedy
            )


def _check_splits(counts: Mapping[str, Mapping[str, int]]) -> None:
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


MIN_CLASSES = 3
"""Two classes must be left to choose from when one is held out."""


def check_false_accept(images: Mapping[str, int], rate: float) -> None:
    """Check that a rejection threshold can be chosen; ``images`` are the numbers of training images by class.

    Raises:
        TrainError: if a class is called "neither", or if there are too few classes, or too few images for the rate.
    """
    setting, count = f"false_accept {rate:g}", sum(images.values())
    if NEITHER in images:
        rule = f"is the name for images of no class under {setting}"
        raise TrainError(f"class {NEITHER}", rule, "Rename its folder, or leave it out with --train.leave-out")
    if len(images) < MIN_CLASSES:
        rule = f"needs {MIN_CLASSES} classes to hold out each in turn, and there are {len(images)}"
        raise TrainError(setting, rule, "Add a class, or leave out --train.false-accept")
    if find_conformal_rank(count, rate) > count:
        rule = f"needs {ceil(1 / Fraction(str(rate))) - 1} training images, and there are {count}"
        raise TrainError(setting, rule, "Add images, or raise --train.false-accept")


def find_conformal_rank(images: int, rate: float) -> int:
    """Return k such that one more score exceeds the k-th smallest of these with a probability of at most the rate."""
    return ceil((images + 1) * (1 - Fraction(str(rate))))

"""Coverage: whether each class has enough images in each split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from storage.errors import TrainError
from storage.plural import pluralize
from tasks.heads.answers import NEITHER
from tasks.train.rows.assign import SplitAssignment
from tasks.train.rows.deal import MIN_IMAGES, share_out
from tasks.train.rows.splits import SPLITS, Row, check_left_out
from tasks.train.settings import TrainSettings

FEW = 3
"""With fewer images of a class in validation or test, figures of the class say little."""


@dataclass(frozen=True)
class Coverage:
    """The number of images in each split, by class and in total, and warnings about classes with too few."""

    counts: Mapping[str, Mapping[str, int]]
    images: Mapping[str, int]
    warnings: tuple[str, ...]


def check_classes(rows: Sequence[Row], settings: TrainSettings) -> None:
    """Refuse labels with which no head can be trained, however many images each class has.

    Raises:
        TrainError: if there are fewer than two classes, or classes that the settings do not allow.
    """
    _check_names(len({image_id for image_id, _ in rows}), sorted({name for _, name in rows}), settings)


def _check_names(images: int, classes: Sequence[str], settings: TrainSettings) -> None:
    _check_two(images, classes, {})
    if settings.false_accept is not None:
        check_unknown_classes(classes, settings.false_accept)


def forecast_warnings(images: Mapping[str, int], settings: TrainSettings) -> tuple[str, ...]:
    """Foresee what training will warn of, from the number of images of each class.

    Raises:
        TrainError: as :func:`check_classes`, or if a class to leave out does not exist.
    """
    check_left_out(images, settings)
    trained = {name: count for name, count in images.items() if name not in settings.leave_out}
    _check_names(sum(trained.values()), sorted(trained), settings)
    small = {name: count for name, count in trained.items() if count < MIN_IMAGES}
    dealt = {
        name: share_out(Counter(), count, name, SPLITS, settings)
        for name, count in trained.items()
        if name not in small
    }
    _check_two(sum(map(trained.__getitem__, dealt)), list(dealt), small)
    counts = {name: {str(split): count[split] for split in SPLITS} for name, count in dealt.items()}
    return (*warn_left_out(small), *warn_thin(counts))


def check_coverage(assignment: SplitAssignment, settings: TrainSettings) -> Coverage:
    """Count the images of each class in each split.

    Raises:
        TrainError: if fewer than two classes are left; if a whole split is empty; if the settings need more labels
            than there are.
    """
    rows, splits = assignment.rows, assignment.splits
    counted = Counter((name, splits[image_id]) for image_id, name in rows)
    classes = sorted({name for _, name in rows})
    _check_two(len(splits), classes, assignment.left_out)
    counts = {name: {str(split): counted[name, split] for split in SPLITS} for name in classes}
    images = {str(split): sum(other == split for other in splits.values()) for split in SPLITS}
    _check_splits(images)
    if settings.multi_label:
        _check_labels_vary(counts, images["train"])
    if settings.false_accept is not None:
        check_false_accept({name: row["train"] for name, row in counts.items()}, settings.false_accept)
    return Coverage(counts, images, (*warn_left_out(assignment.left_out), *warn_thin(counts)))


def _check_two(images: int, classes: Sequence[str], left_out: Mapping[str, int]) -> None:
    if len(classes) < 2:  # noqa: PLR2004 - a choice needs two
        number = f"1 class ({classes[0]})" if classes else "no class"
        rule, remedy = "a head needs two classes", "Put images into class folders"
        if left_out:
            rule = f"{rule}, and {_name_classes(left_out)} have too few images to train and measure on"
            remedy = f"Add images: each class needs {FEW}"
        raise TrainError(f"{pluralize(images, 'labelled image')} of {number}", rule, remedy)


def warn_left_out(classes: Mapping[str, int]) -> tuple[str, ...]:
    """Warn about classes, with their numbers of images, that were left out because these are too few."""
    if not classes:
        return ()
    number = pluralize(len(classes), "class was", "classes were")
    return (f"{number} left out, with too few images to train and measure on: {_name_classes(classes)}",)


def warn_thin(counts: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Warn about classes with few images, or none, in validation or test."""
    thin = {name: sum(row.values()) for name, row in counts.items() if min(row["validation"], row["test"]) < FEW}
    if not thin:
        return ()
    number = pluralize(len(thin), "class has", "classes have")
    whose = "its" if len(thin) == 1 else "their"
    rule = f"fewer than {FEW} images in validation or test, so that {whose} own figures say little"
    return (f"{number} {rule}: {_name_classes(thin)}",)


def _name_classes(classes: Mapping[str, int]) -> str:
    """Name all classes, with their numbers of images."""
    return ", ".join(f"{name} ({images})" for name, images in sorted(classes.items()))


def warn_bridges(images: int) -> tuple[str, ...]:
    """Warn about images that were left out because they belong to several splits."""
    if not images:
        return ()
    number, whose = pluralize(images, "image was", "images were"), "its group" if images == 1 else "their groups"
    return (f"{number} left out because {whose} or near-duplicates are in several splits",)


def _check_labels_vary(counts: Mapping[str, Mapping[str, int]], images: int) -> None:
    for name, row in counts.items():
        if row["train"] == images:
            remedy = "Add images without it, or leave it out with --train.leave-out"
            raise TrainError(
                f"label {name}",
                f"is on all {pluralize(images, 'training image')}, so that it cannot be learned",
                remedy,
            )


def _check_splits(images: Mapping[str, int]) -> None:
    for split, count in images.items():
        if not count:
            total = pluralize(sum(images.values()), "labelled image")
            raise TrainError(total, f"leave none in {split}", f"Add images, or raise --train.{split}")


MIN_CLASSES = 3
"""Two classes must be left to choose from when one is held out."""


def check_false_accept(images: Mapping[str, int], rate: float) -> None:
    """Check that a rejection threshold can be chosen; ``images`` are the numbers of training images by class.

    Raises:
        TrainError: if a class is called "neither", or if there are too few classes, or too few images for the rate.
    """
    check_unknown_classes(list(images), rate)
    setting, count = f"false_accept {rate:g}", sum(images.values())
    if find_conformal_rank(count, rate) > count:
        needed = pluralize(ceil(1 / Fraction(str(rate))) - 1, "training image")
        rule = f"needs {needed}, and there are {count:,}"
        raise TrainError(setting, rule, "Add images, or raise --train.false-accept")


def check_unknown_classes(classes: Sequence[str], rate: float) -> None:
    """Check that classes can be held out in turn.

    Raises:
        TrainError: if a class is called "neither", or if there are too few classes.
    """
    setting = f"false_accept {rate:g}"
    if NEITHER in classes:
        rule = f"is the name for images of no class under {setting}"
        raise TrainError(f"class {NEITHER}", rule, "Rename its folder, or leave it out with --train.leave-out")
    if len(classes) < MIN_CLASSES:
        rule = f"needs {MIN_CLASSES} classes to hold out each in turn, and there are {len(classes)}"
        raise TrainError(setting, rule, "Add a class, or leave out --train.false-accept")


def find_conformal_rank(images: int, rate: float) -> int:
    """Return k such that one more score exceeds the k-th smallest of these with a probability of at most the rate."""
    return ceil((images + 1) * (1 - Fraction(str(rate))))

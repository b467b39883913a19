"""Splits: which images train, choose and measure, and in which folds. By hash an image never moves."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.errors import TrainError
from tasks.train.neither import check_unknown
from tasks.train.settings import TrainSettings

Row = tuple[str, str]
"""(image_id, class)"""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
GROUP = "group:"


@dataclass(frozen=True)
class Coverage:
    """How many images of each class, and of all, fall into each split, and what is thin about it, in words."""

    counts: Mapping[str, Mapping[str, int]]
    images: Mapping[str, int]
    warnings: tuple[str, ...]


def assign_split(key: str, settings: TrainSettings) -> Split:
    """Choose the split of an image or a group from its key and the seed alone, so that it stays as data grows.

    Args:
        key: an image_id, or what :func:`name_group` gives.
        settings: the seed, and the shares of the splits.
    """
    place = _hash(key, f"{settings.seed}:")
    if place < settings.test:
        return "test"
    return "validation" if place < settings.test + settings.validation else "train"


def assign_fold(key: str, settings: TrainSettings) -> int:
    """Choose the fold of an image or a group from its key and the seed alone."""
    return int(_hash(key, f"{settings.seed}:fold:") * settings.folds)


def name_group(name: str) -> str:
    """Give the key of a group, which is no image's."""
    return f"{GROUP}{name}"


def split_by_time(keys: Mapping[str, str], settings: TrainSettings) -> dict[str, Split]:
    """Let the newest images measure, those before them choose, and the oldest train; groups go by their newest.

    Args:
        keys: the key of each image's group, oldest image first.
        settings: the shares of the splits. A group goes into a split that the newer groups have not filled, so that
            none is empty for want of one image.
    """
    sizes, newer = Counter(keys.values()), 0
    splits: dict[str, Split] = {}
    for key in dict.fromkeys(reversed(list(keys.values()))):
        share = newer / len(keys)
        chosen = share < settings.test + settings.validation
        splits[key] = "test" if share < settings.test else "validation" if chosen else "train"
        newer += sizes[key]
    return {image_id: splits[key] for image_id, key in keys.items()}


def _hash(key: str, salt: str) -> float:
    """Give the first 64 bits of SHA-256(salt, key), divided by 2**64: uniform on [0, 1)."""
    content = key.encode() if key.startswith(GROUP) else bytes.fromhex(key.replace("-", ""))
    return int.from_bytes(hashlib.sha256(salt.encode() + content).digest()[:8]) / 2**64


def keep_single(labels: Iterable[tuple[str, str]], settings: TrainSettings) -> dict[str, str]:
    """Give each image its class, without images of several classes and classes that are left out."""
    classes: dict[str, set[str]] = {}
    for image_id, name in labels:
        classes.setdefault(image_id, set()).add(name)
    single = {image_id: next(iter(names)) for image_id, names in classes.items() if len(names) == 1}
    return {image_id: name for image_id, name in sorted(single.items()) if name not in settings.leave_out}


def keep_rows(labels: Iterable[tuple[str, str]], settings: TrainSettings) -> list[Row]:
    """Give the rows to train and measure on, by image: one an image, with ``multi_label`` one a label."""
    if settings.multi_label:
        return sorted((image_id, name) for image_id, name in set(labels) if name not in settings.leave_out)
    return list(keep_single(labels, settings).items())


def check_splits(rows: Sequence[Row], settings: TrainSettings, places: Mapping[str, Split] | None = None) -> Coverage:
    """Count what each class has to train, choose and measure with.

    Args:
        rows: to train, choose and measure on.
        settings: what is asked of them.
        places: the split of each image; by default that of its id.

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

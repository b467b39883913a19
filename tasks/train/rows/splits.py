"""Splits: which images train, choose and measure, and in which folds. By hash an image never moves."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.canonical import digest
from storage.errors import TrainError
from storage.lake.lake import Lake
from storage.names import LabelSetName
from storage.progress import Progress
from storage.tables.trainings import list_labelled
from tasks.train.rows.groups import GROUP, Arrivals, find_groups
from tasks.train.settings import TrainSettings

Row = tuple[str, str]
"""(image_id, class)"""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
NAMED = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class Division:
    """Rows with the split and the group's key of each image, and how many images were left out between splits."""

    rows: tuple[Row, ...]
    places: Mapping[str, Split]
    keys: Mapping[str, str]
    bridges: int

    @property
    def identity(self) -> str:
        """A hash of each image's group and split."""
        return digest([[image_id, self.keys[image_id], split] for image_id, split in sorted(self.places.items())])


def assign_split(key: str, settings: TrainSettings) -> Split:
    """Choose the split of an image or a group from its key and the seed alone, so that it stays as data grows.

    Args:
        key: an image_id, or that of a group of images.
        settings: the seed, and the shares of the splits.
    """
    place = _hash(key, f"{settings.seed}:")
    if place < settings.test:
        return "test"
    return "validation" if place < settings.test + settings.validation else "train"


def assign_fold(key: str, settings: TrainSettings) -> int:
    """Choose the fold of an image or a group from its key and the seed alone."""
    return int(_hash(key, f"{settings.seed}:fold:") * settings.folds)


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


def select_single(labels: Iterable[tuple[str, str]], settings: TrainSettings) -> dict[str, str]:
    """Give each image its class, without images of several classes and classes that are left out."""
    classes: dict[str, set[str]] = {}
    for image_id, name in labels:
        classes.setdefault(image_id, set()).add(name)
    single = {image_id: next(iter(names)) for image_id, names in classes.items() if len(names) == 1}
    return {image_id: name for image_id, name in sorted(single.items()) if name not in settings.leave_out}


def select_rows(labels: Sequence[tuple[str, str]], settings: TrainSettings) -> list[Row]:
    """Give the rows to train and measure on, by image: one an image, with ``multi_label`` one a label.

    Raises:
        TrainError: where a class is to be left out that no image has.
    """
    _check_left_out({name for _, name in labels}, settings)
    if settings.multi_label:
        return sorted((image_id, name) for image_id, name in set(labels) if name not in settings.leave_out)
    return list(select_single(labels, settings).items())


def _check_left_out(classes: Collection[str], settings: TrainSettings) -> None:
    strange = sorted(set(settings.leave_out).difference(classes))
    if strange and classes:
        more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
        there = f"{', '.join(sorted(classes)[:NAMED])}{more}"
        raise TrainError(
            f"train.leave_out {', '.join(strange)}", "is no class of these images", f"The classes are {there}"
        )


def divide(
    lake: Lake,
    label_set: LabelSetName,
    recipe_id: str,
    settings: TrainSettings,
    arrivals: Arrivals | None,
    progress: Progress,
) -> Division:
    """Read the rows to train and measure on, and give each image its split; one between splits is left out.

    All images that have features take part in grouping, so that labels decide nothing about it. ``arrivals`` are what
    :func:`tasks.train.rows.groups.read_arrivals` reads, None where splits follow from ids alone.

    Raises:
        TrainError: where a class is to be left out that no image has.
    """
    rows = select_rows(list_labelled(lake, label_set, recipe_id, several=settings.multi_label), settings)
    labelled = dict(rows)
    if arrivals is None:
        places = {image_id: assign_split(image_id, settings) for image_id in labelled}
        return Division(tuple(rows), places, {image_id: image_id for image_id in labelled}, 0)

    def place(key: str) -> str:
        # by time all groups may be joined, as each is given its split afterwards
        return "" if settings.split == "time" else assign_split(key, settings)

    found = find_groups(lake, recipe_id, arrivals, settings, place, progress)
    keys = {image_id: key for image_id, key in found.items() if image_id in labelled}
    places = {image_id: assign_split(key, settings) for image_id, key in keys.items()}
    if settings.split == "time":
        places = split_by_time(keys, settings)
    kept = tuple(row for row in rows if row[0] in keys)
    return Division(kept, places, keys, len(labelled) - len(keys))

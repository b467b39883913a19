"""Splits and folds of the images. Split by hash, an image never moves."""

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
from tasks.train.rows.groups import GROUP, GroupingInputs, find_groups
from tasks.train.settings import TrainSettings

Row = tuple[str, str]
"""(image_id, class)"""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MAX_NAMES = 5
"""The number of classes that a message names."""


@dataclass(frozen=True)
class SplitAssignment:
    """Rows with the split and the group key of each image.

    ``bridges`` is the number of images that were left out because they belong to groups of different splits.
    """

    rows: tuple[Row, ...]
    splits: Mapping[str, Split]
    groups: Mapping[str, str]
    bridges: int

    @property
    def identity(self) -> str:
        """A hash of each image's group and split."""
        return digest([[image_id, self.groups[image_id], split] for image_id, split in sorted(self.splits.items())])


def assign_split(key: str, settings: TrainSettings) -> Split:
    """Return the split of an image or a group, which depends on its key and the seed alone.

    Args:
        key: An image id, or the key of a group.
        settings: The seed, and the shares of the splits.
    """
    position = _hash(key, f"{settings.seed}:")
    if position < settings.test:
        return "test"
    return "validation" if position < settings.test + settings.validation else "train"


def assign_fold(key: str, settings: TrainSettings) -> int:
    """Return the fold of an image or a group, which depends on its key and the seed alone."""
    return int(_hash(key, f"{settings.seed}:fold:") * settings.folds)


def split_by_time(keys: Mapping[str, str], settings: TrainSettings) -> dict[str, Split]:
    """Test on the newest images, validate on those before, train on the oldest; a group goes by its newest image.

    A group goes into a split that newer groups have not filled, so that none is empty for want of one image.

    Args:
        keys: The group key of each image, oldest image first.
        settings: The shares of the splits.
    """
    sizes, newer = Counter(keys.values()), 0
    splits: dict[str, Split] = {}
    for key in dict.fromkeys(reversed(list(keys.values()))):
        share = newer / len(keys)
        held_out = share < settings.test + settings.validation
        splits[key] = "test" if share < settings.test else "validation" if held_out else "train"
        newer += sizes[key]
    return {image_id: splits[key] for image_id, key in keys.items()}


def _hash(key: str, salt: str) -> float:
    """Return the first 64 bits of SHA-256(salt, key), divided by 2**64: uniform on [0, 1)."""
    content = key.encode() if key.startswith(GROUP) else bytes.fromhex(key.replace("-", ""))
    return int.from_bytes(hashlib.sha256(salt.encode() + content).digest()[:8]) / 2**64


def select_single(labels: Iterable[tuple[str, str]], settings: TrainSettings) -> dict[str, str]:
    """Return the class of each image, without images of several classes and without classes to leave out."""
    classes: dict[str, set[str]] = {}
    for image_id, name in labels:
        classes.setdefault(image_id, set()).add(name)
    single = {image_id: next(iter(names)) for image_id, names in classes.items() if len(names) == 1}
    return {image_id: name for image_id, name in sorted(single.items()) if name not in settings.leave_out}


def select_rows(labels: Sequence[tuple[str, str]], settings: TrainSettings) -> list[Row]:
    """Return the rows to train and measure on: one per image, or one per label with ``multi_label``.

    Raises:
        TrainError: if a class to leave out does not exist.
    """
    _check_left_out({name for _, name in labels}, settings)
    if settings.multi_label:
        return sorted((image_id, name) for image_id, name in set(labels) if name not in settings.leave_out)
    return list(select_single(labels, settings).items())


def _check_left_out(classes: Collection[str], settings: TrainSettings) -> None:
    unknown = sorted(set(settings.leave_out).difference(classes))
    if unknown and classes:
        more = f" and {len(classes) - MAX_NAMES} more" if len(classes) > MAX_NAMES else ""
        names = f"{', '.join(sorted(classes)[:MAX_NAMES])}{more}"
        raise TrainError(
            f"train.leave_out {', '.join(unknown)}", "is no class of these images", f"The classes are {names}"
        )


def assign_splits(
    lake: Lake,
    label_set: LabelSetName,
    recipe_id: str,
    settings: TrainSettings,
    grouping: GroupingInputs | None,
    progress: Progress,
) -> SplitAssignment:
    """Read the rows to train and measure on, and assign each image to a split.

    All images that have features take part in grouping, labelled or not, so that labels do not change the groups.
    ``grouping`` is None if splits depend on image ids alone.

    Raises:
        TrainError: if a class to leave out does not exist.
    """
    rows = select_rows(list_labelled(lake, label_set, recipe_id, several=settings.multi_label), settings)
    labelled = dict(rows)
    if grouping is None:
        splits = {image_id: assign_split(image_id, settings) for image_id in labelled}
        return SplitAssignment(tuple(rows), splits, {image_id: image_id for image_id in labelled}, 0)

    def split_of(key: str) -> str:
        # By time, groups get their split afterwards, so any of them may merge.
        return "" if settings.split == "time" else assign_split(key, settings)

    all_groups = find_groups(lake, recipe_id, grouping, settings, split_of, progress)
    groups = {image_id: key for image_id, key in all_groups.items() if image_id in labelled}
    splits = {image_id: assign_split(key, settings) for image_id, key in groups.items()}
    if settings.split == "time":
        splits = split_by_time(groups, settings)
    kept = tuple(row for row in rows if row[0] in groups)
    return SplitAssignment(kept, splits, groups, len(labelled) - len(groups))

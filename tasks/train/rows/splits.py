"""Rows to train and measure on, and what decides their splits and folds."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from storage.errors import TrainError
from tasks.train.rows.groups import GROUP
from tasks.train.settings import TrainSettings

Row = tuple[str, str]
"""(image_id, class)"""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MAX_NAMES = 5
"""The number of classes that a message names."""


def assign_fold(key: str, folds: int, settings: TrainSettings) -> int:
    """Return the fold of an image or a group, which depends on its key and the seed alone."""
    return int(hash_position(key, f"{settings.seed}:fold:") * folds)


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


def hash_position(key: str, salt: str) -> float:
    """Return where an image id or the key of a group falls in [0, 1), uniformly, by its hash."""
    return _hash(salt.encode() + (key.encode() if key.startswith(GROUP) else bytes.fromhex(key.replace("-", ""))))


def hash_class(name: str, salt: str) -> float:
    """Return where a class falls in [0, 1), uniformly, by its hash."""
    return _hash(f"{salt}class:{name}".encode())


def _hash(content: bytes) -> float:
    """Return the first 64 bits of a SHA-256, divided by 2**64."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) / 2**64


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
    check_left_out({name for _, name in labels}, settings)
    if settings.multi_label:
        return sorted((image_id, name) for image_id, name in set(labels) if name not in settings.leave_out)
    return list(select_single(labels, settings).items())


def check_left_out(classes: Collection[str], settings: TrainSettings) -> None:
    """Refuse classes to leave out that do not exist.

    Raises:
        TrainError: if there is one.
    """
    unknown = sorted(set(settings.leave_out).difference(classes))
    if unknown and classes:
        more = f" and {len(classes) - MAX_NAMES} more" if len(classes) > MAX_NAMES else ""
        names = f"{', '.join(sorted(classes)[:MAX_NAMES])}{more}"
        raise TrainError(
            f"train.leave_out {', '.join(unknown)}", "is no class of these images", f"The classes are {names}"
        )

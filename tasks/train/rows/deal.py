"""Deal images to splits so that each class has its share of each split, and nothing that is placed moves."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.train.rows.splits import SPLITS, Split, hash_class, hash_position
from tasks.train.settings import TrainSettings

MIN_IMAGES = len(SPLITS)
"""A class with fewer images cannot have one in each split."""
FILL_ORDER: tuple[Split, ...] = ("train", "test", "validation")
"""The order in which splits without an image of a class get one."""


@dataclass(frozen=True)
class Deal:
    """The split of each unit that has one, and the classes that were not dealt because they have too few images."""

    splits: Mapping[str, Split]
    too_small: frozenset[str]


@dataclass(frozen=True)
class Placements:
    """What is decided before images are dealt.

    ``splits`` are those of units that stay where they are, ``settled`` the units that were in a training already,
    and ``allowed`` the splits that others may be dealt to.
    """

    splits: Mapping[str, Split]
    settled: Collection[str]
    allowed: tuple[Split, ...] = SPLITS


def deal(classes: Mapping[str, Mapping[str, int]], placements: Placements, settings: TrainSettings) -> Deal:
    """Deal the units of each class, rarest class first: by rank of their hash, the first ones are for testing.

    A unit is an image or a group of images that must share a split. A class with fewer than three images is left alone,
    unless all of them were in a training already.

    Args:
        classes: The number of images of each unit, by class.
        placements: What is decided already.
        settings: The seed, and the shares of the splits.
    """
    splits, too_small = dict(placements.splits), set[str]()
    for name in sorted(classes, key=lambda name: (sum(classes[name].values()), name)):
        sizes = classes[name]
        if sum(sizes.values()) < MIN_IMAGES and not all(unit in placements.settled for unit in sizes):
            too_small.add(name)
            continue
        counts = Counter[Split]()
        for unit in sizes.keys() & splits.keys():
            counts[splits[unit]] += sizes[unit]
        free = {unit: sizes[unit] for unit in sizes if unit not in splits}
        quotas = share_out(counts, sum(free.values()), name, placements.allowed, settings)
        splits |= _take(free, quotas, counts, settings)
    return Deal(splits, frozenset(too_small))


def share_out(
    counts: Mapping[Split, int], images: int, name: str, allowed: Sequence[Split], settings: TrainSettings
) -> Counter[Split]:
    """Return how many more images of a class go into each split, so that the class has its shares.

    A split without any comes first. Of splits that lack as much, a hash of the class decides.
    """
    total, after = sum(counts.values()) + images, Counter(counts)
    targets = _find_targets(counts, total, allowed, settings)

    def gap(split: Split) -> float:
        return targets[split] - after[split]

    empty = [split for split in FILL_ORDER if split in allowed and not after[split]][:images]
    after.update(empty)
    whole = {split: int(gap(split)) for split in allowed if gap(split) >= 1}
    if sum(whole.values()) <= images - len(empty):
        after.update(whole)
    order = list(allowed) if hash_class(name, f"{settings.seed}:") < 1 / 2 else list(reversed(allowed))
    while sum(after.values()) < total:
        after[max(order, key=gap)] += 1
    return after - Counter(counts)


def _find_targets(
    counts: Mapping[Split, int], total: int, allowed: Sequence[Split], settings: TrainSettings
) -> dict[Split, float]:
    """Return how many images each split should have; what others have too many of, all lack by their shares."""
    shares: dict[Split, float] = {"validation": settings.validation, "test": settings.test}
    shares["train"] = 1 - settings.validation - settings.test
    lacking = [split for split in allowed if counts.get(split, 0) < shares[split] * total] or list(allowed)
    rest = total - sum(count for split, count in counts.items() if split not in lacking)
    whole = sum(shares[split] for split in lacking)
    return {split: shares[split] / whole * rest if split in lacking else 0.0 for split in SPLITS}


def _take(
    free: Mapping[str, int], quotas: Mapping[Split, int], counts: Mapping[Split, int], settings: TrainSettings
) -> dict[str, Split]:
    """Fill the quotas of images with whole units, in the order of their hashes; the rest is for training."""
    rest = sorted(free, key=lambda unit: hash_position(unit, f"{settings.seed}:"))
    splits: dict[str, Split] = {}
    waiting = [split for split in FILL_ORDER if quotas[split] and not counts.get(split)][: len(rest)]
    """The splits that are empty, each of which must be left a unit."""
    held_out: tuple[Split, ...] = ("test", "validation")
    for split in held_out:
        is_empty = split in waiting
        waiting = [other for other in waiting if other != split]
        spare = max(len(rest) - len(waiting), 0)
        chosen = _choose(rest, free, quotas[split])[:spare]
        if not chosen and is_empty and spare:
            chosen = [min(rest, key=free.__getitem__)]
        splits |= dict.fromkeys(chosen, split)
        taken = set(chosen)
        rest = [unit for unit in rest if unit not in taken]
    return splits | dict.fromkeys(rest, "train")


def _choose(units: Iterable[str], sizes: Mapping[str, int], quota: int) -> list[str]:
    """Choose units in order, each of which brings the number of images closer to the quota."""
    chosen: list[str] = []
    for unit in units:
        if quota <= 0:
            break
        if sizes[unit] < 2 * quota:
            chosen.append(unit)
            quota -= sizes[unit]
    return chosen

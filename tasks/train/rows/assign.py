"""Assign the images of a label set to splits: where they were placed before, where folders say, or by dealing."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from storage.canonical import digest
from storage.errors import LakeBusyError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName
from storage.progress import Progress
from storage.tables.splits import DEALT, GIVEN, HASHED, NewSplit, RecordedSplit, list_given, list_splits, save_splits
from storage.tables.trainings import list_labelled
from tasks.train.rows.deal import Placements, deal
from tasks.train.rows.groups import GroupingInputs, find_groups
from tasks.train.rows.splits import SPLITS, Row, Split, select_rows, split_by_time
from tasks.train.settings import TrainSettings

ATTEMPTS = 10


@dataclass(frozen=True)
class LabelledImages:
    """The images that a label set labels and that have a feature under a recipe, in a snapshot."""

    label_set: LabelSetName
    recipe_id: str
    snapshot: int


@dataclass(frozen=True)
class SplitIdentity:
    """What splits add to a training's identity: a hash unless they follow from the rows, and classes left out."""

    digest: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitAssignment:
    """Rows with the split and the group key of each image.

    ``bridges`` is the number of images that were left out because they belong to groups of different splits, or their
    folders give them several. ``left_out`` has the number of images of each class with too few to train and measure
    on. ``hashed`` if splits follow from the ids alone, as in earlier releases. ``new`` splits are to be recorded.
    """

    rows: tuple[Row, ...]
    splits: Mapping[str, Split]
    groups: Mapping[str, str]
    bridges: int
    left_out: Mapping[str, int]
    hashed: bool = False
    new: tuple[NewSplit, ...] = ()

    @property
    def identity(self) -> SplitIdentity:
        """A hash of each image's group and split, and the classes that are left out."""
        parts = [[image_id, self.groups[image_id], split] for image_id, split in sorted(self.splits.items())]
        return SplitIdentity(None if self.hashed else digest(parts), tuple(sorted(self.left_out)))


@dataclass(frozen=True)
class _Known:
    """What is known of images before they are split: what folders give, what was recorded, and by which snapshot."""

    given: Mapping[str, str | None]
    recorded: Mapping[str, RecordedSplit]
    snapshot: int

    @property
    def allowed(self) -> tuple[Split, ...]:
        """The splits that images are dealt to: where folders give some, what they miss is taken from training."""
        there = set(self.given.values()) - {"train"}
        return tuple(split for split in SPLITS if split not in there)

    def fix(self) -> dict[str, Split]:
        """Return the splits of the images that stay where they are."""
        allowed = self.allowed
        fixed = {image_id: row.split for image_id, row in self.recorded.items() if image_id not in self.given}
        for image_id, split in self.given.items():
            recorded = self.recorded.get(image_id)
            if split == "train" and len(allowed) > 1:  # some of the training images become what folders lack
                if recorded:
                    fixed[image_id] = recorded.split if recorded.split in allowed else split
            elif split:
                fixed[image_id] = split
        return cast("dict[str, Split]", fixed)

    def is_settled(self, image_id: str) -> bool:
        """Return whether an image was placed by the snapshot that is being split."""
        recorded = self.recorded.get(image_id)
        return image_id in self.given or (recorded is not None and recorded.snapshot <= self.snapshot)


def place_images(
    home: Home,
    lake: Lake,
    images: LabelledImages,
    settings: TrainSettings,
    grouping: GroupingInputs | None,
    now: datetime,
    progress: Progress,
) -> SplitAssignment:
    """Assign each image to a split, and record the splits of those that had none.

    Splits are read from the newest snapshot, whichever is trained on: an image never moves.

    Raises:
        TrainError: if a class to leave out does not exist.
        LakeBusyError: if other trainings place the same images again and again.
    """
    label_set, scheme = images.label_set, settings.scheme
    for _ in range(ATTEMPTS):
        with read_lake(home) as newest:
            recorded = list_splits(newest, label_set, scheme)
        known = _Known(list_given(lake, label_set), recorded, images.snapshot)
        assignment = assign_splits(lake, images, settings, grouping, known, progress)
        if not assignment.new:
            return assignment
        with open_lake(home) as writable:
            if save_splits(writable, label_set, scheme, assignment.new, images.snapshot, now):
                return assignment
    raise LakeBusyError(f"splits of {label_set}", f"were placed {ATTEMPTS} times by other trainings", "Run again")


def assign_splits(
    lake: Lake,
    images: LabelledImages,
    settings: TrainSettings,
    grouping: GroupingInputs | None,
    known: _Known,
    progress: Progress,
) -> SplitAssignment:
    """Read the rows to train and measure on, and assign each image to a split.

    All images that have features take part in grouping, labelled or not, so that labels do not change the groups.
    ``grouping`` is None if nothing groups images.

    Raises:
        TrainError: if a class to leave out does not exist.
    """
    labels = list_labelled(lake, images.label_set, images.recipe_id, several=settings.multi_label)
    rows = select_rows(labels, settings)
    labelled = {image_id for image_id, _ in rows}
    by_time = settings.split == "time"
    fixed = {} if by_time else known.fix()
    groups = {image_id: image_id for image_id in sorted(labelled)}
    if grouping:
        # By time, groups get their split afterwards, so any of them may merge.
        found = find_groups(lake, images.recipe_id, grouping, settings, fixed, progress)
        groups = {image_id: key for image_id, key in found.items() if image_id in labelled}
    if not by_time:
        groups = {image_id: key for image_id, key in groups.items() if known.given.get(image_id, "") is not None}
    rows = [row for row in rows if row[0] in groups]
    whole = SplitAssignment(tuple(rows), {}, groups, len(labelled) - len(groups), {})
    if by_time:
        return _leave_out(replace(whole, splits=split_by_time(groups, settings)), frozenset())
    return _deal(whole, fixed, known, settings)


def _deal(
    whole: SplitAssignment, fixed: Mapping[str, Split], known: _Known, settings: TrainSettings
) -> SplitAssignment:
    groups, classes = whole.groups, dict[str, Counter[str]]()
    for image_id, name in whole.rows:
        classes.setdefault(name, Counter())[groups[image_id]] += 1
    placed = {key: fixed[image_id] for image_id, key in groups.items() if image_id in fixed}
    settled = {key for image_id, key in groups.items() if known.is_settled(image_id)}
    dealt = deal(classes, Placements(placed, settled, known.allowed), settings)
    splits = {image_id: dealt.splits[key] for image_id, key in groups.items() if key in dealt.splits}
    kept = _leave_out(replace(whole, splits=splits), dealt.too_small)
    hashed = whole.groups.keys() == set(whole.groups.values()) and all(
        image_id not in known.given and _origin(known, image_id) == HASHED for image_id in kept.splits
    )
    return replace(kept, hashed=hashed and settings.plain, new=_list_new(splits, known))


def _leave_out(whole: SplitAssignment, too_small: Collection[str]) -> SplitAssignment:
    """Leave out classes that are too small, have no training image, or none to measure on."""
    counts, totals = Counter[tuple[str, str]](), Counter(name for _, name in whole.rows)
    counts.update((name, whole.splits[image_id]) for image_id, name in whole.rows if image_id in whole.splits)
    left_out = {
        name: total
        for name, total in totals.items()
        if name in too_small or not counts[name, "train"] or not (counts[name, "validation"] or counts[name, "test"])
    }
    rows = tuple(row for row in whole.rows if row[1] not in left_out and row[0] in whole.splits)
    there = {image_id for image_id, _ in rows}
    splits = {image_id: split for image_id, split in whole.splits.items() if image_id in there}
    return replace(whole, rows=rows, splits=splits, left_out=left_out)


def _list_new(splits: Mapping[str, Split], known: _Known) -> tuple[NewSplit, ...]:
    """List the splits that are not recorded yet, or that folders have changed."""
    new = []
    for image_id, split in splits.items():
        recorded = known.recorded.get(image_id)
        if recorded is None or recorded.split != split:
            is_given = known.given.get(image_id) == split
            new.append(NewSplit(image_id, split, GIVEN if is_given else DEALT))
    return tuple(new)


def _origin(known: _Known, image_id: str) -> str | None:
    recorded = known.recorded.get(image_id)
    return recorded.origin if recorded else None

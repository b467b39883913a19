"""Groups of images that must share a split: they have a name in common or are near-duplicates."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from storage.canonical import digest
from storage.errors import TrainError
from storage.lake.lake import Lake
from storage.names import LabelSetName
from storage.progress import Progress
from storage.queries.image_facts import list_arrivals
from storage.sources.copies import ImageCopy, choose_copies
from storage.tables.features import read_features
from storage.tables.label_sets import list_sources
from storage.tables.scans import list_paths
from tasks.train.rows.near_duplicates import MIN_COSINE, LooksSame, find_earlier_neighbours, make_file_comparison
from tasks.train.settings import TrainSettings

GROUP = "group:"


@dataclass(frozen=True)
class GroupingInputs:
    """Everything that decides the groups, for images by arrival: ids, arrival times, group names, and copies.

    ``copies`` is empty unless near-duplicates are grouped.
    """

    image_ids: tuple[str, ...]
    times: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    copies: tuple[ImageCopy | None, ...]

    @property
    def identity(self) -> str:
        """A hash of all four."""
        paths = [copy and copy.full_path for copy in self.copies]
        return digest([self.image_ids, self.times, self.names, paths])


@dataclass
class UnionFind:
    """Disjoint groups of keys; a group's own key is the first that was added."""

    _parents: dict[str, str] = field(default_factory=dict)
    _ranks: dict[str, int] = field(default_factory=dict)

    def find(self, key: str) -> str:
        """Return the key of a key's group, and add the key if it is new."""
        if key not in self._parents:
            self._parents[key], self._ranks[key] = key, len(self._ranks)
        while (parent := self._parents[key]) != key:
            self._parents[key] = key = self._parents[parent]
        return key

    def union(self, keys: Iterable[str]) -> str:
        """Merge the groups of keys, and return the key of the result."""
        roots = sorted(map(self.find, keys), key=self._ranks.__getitem__)
        self._parents |= dict.fromkeys(roots, roots[0])
        return roots[0]


def make_group_key(name: str) -> str:
    """Return the key of a named group, which differs from every image id."""
    return f"{GROUP}{name}"


def read_grouping_inputs(
    lake: Lake, label_set: LabelSetName, recipe_id: str, settings: TrainSettings
) -> GroupingInputs | None:
    """Read what groups the images that have features, or return None if splits depend on image ids alone.

    Raises:
        TrainError: if no path names a group.
    """
    if settings.plain:
        return None
    arrived = list_arrivals(lake, label_set, recipe_id)
    image_ids = tuple(image_id for image_id, _ in arrived)
    paths = list_paths(lake, list_sources(lake, label_set)) if settings.group else {}
    names = tuple(match_group_names(settings.group or "", paths.get(image_id, ())) for image_id in image_ids)
    if settings.group and image_ids and not any(names):
        raise TrainError(
            f"train.group {settings.group!r}",
            f"matches no path of {label_set}, such as {next(iter(paths.get(image_ids[0], ())), 'none')}",
            "Fix it, or leave it out: nothing would be grouped",
        )
    chosen = choose_copies(lake, image_ids) if settings.near_duplicates else {}
    copies = tuple(map(chosen.get, image_ids)) if settings.near_duplicates else ()
    return GroupingInputs(image_ids, tuple(time for _, time in arrived), names, copies)


def find_groups(
    lake: Lake,
    recipe_id: str,
    grouping: GroupingInputs,
    settings: TrainSettings,
    splits: Mapping[str, str],
    progress: Progress,
) -> dict[str, str]:
    """Return the group key of each image that is not left out, by arrival; ``splits`` are those of placed images."""
    image_ids, names = grouping.image_ids, grouping.names
    if not (settings.near_duplicates and image_ids):
        return group_images(image_ids, names, [np.empty(0, np.int64)] * len(image_ids), lambda *_: False, splits)
    features = read_features(lake, recipe_id, image_ids)
    with progress("compare", len(image_ids)) as advance:
        neighbours = find_earlier_neighbours(features, np.array(grouping.times), MIN_COSINE, advance)
        return group_images(image_ids, names, neighbours, make_file_comparison(image_ids, grouping.copies), splits)


def group_images(
    image_ids: Sequence[str],
    names: Sequence[Sequence[str]],
    neighbours: Iterable[npt.NDArray[np.int64]],
    looks_same: LooksSame,
    splits: Mapping[str, str],
) -> dict[str, str]:
    """Return the group key of each image; an image that would join groups of different splits is left out.

    Images that are placed stay in their splits, so later ones change neither the split of an earlier one nor whether
    it is left out.

    Args:
        image_ids: Image ids, by arrival [n].
        names: The names of each image's groups [n].
        neighbours: The positions of the earlier images that each image may duplicate [n].
        looks_same: Confirms a near-duplicate.
        splits: The splits of the images that are placed.
    """
    groups, keys = UnionFind(), dict[int, str]()
    split_of: dict[str, str] = {}  # by the key of a group with a placed image
    for at, candidates in enumerate(neighbours):
        joined = {groups.find(make_group_key(name)) for name in names[at]}
        for other in candidates.tolist():
            if other in keys and groups.find(keys[other]) not in joined and looks_same(at, other):
                joined.add(groups.find(keys[other]))
        different = {split_of[key] for key in joined if key in split_of}
        if image_ids[at] in splits:
            different.add(splits[image_ids[at]])
        if len(different) <= 1:
            keys[at] = groups.union(joined or [image_ids[at]])
            split_of.update((keys[at], split) for split in different)
    return {image_ids[at]: groups.find(key) for at, key in keys.items()}


def match_group_names(pattern: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the group names that a pattern finds in an image's paths."""
    matches = (re.search(pattern, path) for path in paths)
    return tuple(sorted({match[1] for match in matches if match and match[1]}))

"""Groups: images that must not lie in several splits, by a name in common or as near-duplicates."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from storage.canonical import digest
from storage.errors import TrainError
from storage.lake.lake import Lake
from storage.names import LabelSetName
from storage.progress import Progress
from storage.sources.copies import find_places
from storage.tables.features import read_features
from storage.tables.image_facts import list_arrivals
from storage.tables.label_sets import list_sources
from storage.tables.scans import list_paths
from tasks.train.rows.near_duplicates import CLOSE, Same, compare_files, meet_earlier
from tasks.train.settings import TrainSettings

GROUP = "group:"
Place = Callable[[str], Hashable]
"""Where the group of a key lies."""


@dataclass(frozen=True)
class Arrivals:
    """What groups images: their ids by arrival, when each came, the names of its groups, and its file, where it counts.

    Another list in any of them may give other groups; the same lists give the same.
    """

    image_ids: tuple[str, ...]
    times: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    files: tuple[str | None, ...]

    @property
    def identity(self) -> str:
        """A hash of all four."""
        return digest([self.image_ids, self.times, self.names, self.files])


@dataclass
class Groups:
    """Keys, joined where an image has several; of joined keys the first that came is the group's."""

    _parents: dict[str, str] = field(default_factory=dict)
    _ranks: dict[str, int] = field(default_factory=dict)

    def add(self, key: str) -> str:
        """Give the key of a key's group, which is new where nothing has it."""
        if key not in self._parents:
            self._parents[key], self._ranks[key] = key, len(self._ranks)
        while (parent := self._parents[key]) != key:
            self._parents[key] = key = self._parents[parent]
        return key

    def join(self, keys: Iterable[str]) -> str:
        """Make one group of several; gives its key."""
        found = sorted(map(self.add, keys), key=self._ranks.__getitem__)
        self._parents |= dict.fromkeys(found, found[0])
        return found[0]


def name_group(name: str) -> str:
    """Give the key of a group, which is no image's."""
    return f"{GROUP}{name}"


def read_arrivals(lake: Lake, label_set: LabelSetName, recipe_id: str, settings: TrainSettings) -> Arrivals | None:
    """Read what groups the images that have features; None where splits follow from ids alone.

    Raises:
        TrainError: where no path names a group.
    """
    if settings.plain:
        return None
    arrived = list_arrivals(lake, label_set, recipe_id)
    image_ids = tuple(image_id for image_id, _ in arrived)
    paths = list_paths(lake, list_sources(lake, label_set)) if settings.group else {}
    names = tuple(find_names(settings.group or "", paths.get(image_id, ())) for image_id in image_ids)
    if settings.group and image_ids and not any(names):
        raise TrainError(
            f"train.group {settings.group!r}",
            f"is found in no path of {label_set}, such as {next(iter(paths.get(image_ids[0], ())), 'none')}",
            "Mend it, or leave it out: nothing would be kept together",
        )
    files = tuple(find_places(lake, image_ids)) if settings.near_duplicates else ()
    return Arrivals(image_ids, tuple(time for _, time in arrived), names, files)


def find_groups(
    lake: Lake, recipe_id: str, arrivals: Arrivals, settings: TrainSettings, place: Place, progress: Progress
) -> dict[str, str]:
    """Give the key of the group of each image that is not left out, by arrival."""
    image_ids, names = arrivals.image_ids, arrivals.names
    if not (settings.near_duplicates and image_ids):
        return join_images(image_ids, names, [np.empty(0, np.int64)] * len(image_ids), lambda *_: False, place)
    features = read_features(lake, recipe_id, image_ids)
    with progress("compare", len(image_ids)) as advance:
        close = meet_earlier(features, np.array(arrivals.times), CLOSE, advance)
        return join_images(image_ids, names, close, compare_files(arrivals.files), place)


def join_images(
    image_ids: Sequence[str],
    names: Sequence[Sequence[str]],
    close: Iterable[npt.NDArray[np.int64]],
    same: Same,
    place: Place,
) -> dict[str, str]:
    """Give each image the key of its group; an image that would join groups of different places is left out.

    What comes later changes neither the place of an image nor whether it is left out: a named group lies where its name
    does, an image without a name where the first like it does.

    Args:
        image_ids: by arrival [n].
        names: the names of the groups of each image [n].
        close: for each image the numbers of the earlier ones that it may nearly equal [n].
        same: confirms a near-duplicate.
        place: where the group of a key lies.
    """
    groups, keys = Groups(), dict[int, str]()
    for at, near in enumerate(close):
        met = {groups.add(name_group(name)) for name in names[at]}
        for other in near.tolist():
            if other in keys and groups.add(keys[other]) not in met and same(at, other):
                met.add(groups.add(keys[other]))
        if len(set(map(place, met))) <= 1:
            keys[at] = groups.join(met or [image_ids[at]])
    return {image_ids[at]: groups.add(key) for at, key in keys.items()}


def find_names(pattern: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Find the names of the groups that an image's paths say it is of."""
    found = (re.search(pattern, path) for path in paths)
    return tuple(sorted({match[1] for match in found if match and match[1]}))

"""Groups: images that must not lie in several splits, by a name in common or as near-duplicates."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tasks.train.near_duplicates import Same
from tasks.train.splits import name_group

Place = Callable[[str], Hashable]
"""Where the group of a key lies."""


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


def find_names(pattern: str, paths: Iterable[str]) -> list[str]:
    """Find the names of the groups that an image's paths say it is of."""
    found = (re.search(pattern, path) for path in paths)
    return sorted({match[1] for match in found if match and match[1]})

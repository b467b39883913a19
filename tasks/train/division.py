"""The division of a snapshot's rows into splits, by groups and time where these are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage.canonical import digest
from storage.errors import TrainError
from storage.features import read_features
from storage.files import find_copies, list_paths
from storage.images import list_arrivals
from storage.lake import Lake
from storage.progress import Progress
from storage.trainings import list_labelled
from tasks.train.groups import find_names, join_images
from tasks.train.near_duplicates import CLOSE, compare_files, meet_earlier
from tasks.train.recorded import choose_place
from tasks.train.settings import TrainSettings
from tasks.train.splits import Row, Split, assign_split, keep_rows, split_by_time


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


def divide(lake: Lake, label_set: str, recipe_id: str, settings: TrainSettings, progress: Progress) -> Division:
    """Read the rows to train and measure on, and give each image its split; one between splits is left out.

    All images that have features take part in grouping, so that labels decide nothing about it.

    Raises:
        TrainError: where no path names a group.
    """
    rows = keep_rows(list_labelled(lake, label_set, recipe_id, several=settings.multi_label), settings)
    labelled = dict(rows)
    if settings.plain:
        places = {image_id: assign_split(image_id, settings) for image_id in labelled}
        return Division(tuple(rows), places, {image_id: image_id for image_id in labelled}, 0)
    found = _find_groups(lake, label_set, recipe_id, settings, progress)
    keys = {image_id: key for image_id, key in found.items() if image_id in labelled}
    places = {image_id: assign_split(key, settings) for image_id, key in keys.items()}
    if settings.split == "time":
        places = split_by_time(keys, settings)
    kept = tuple(row for row in rows if row[0] in keys)
    return Division(kept, places, keys, len(labelled) - len(keys))


def _find_groups(
    lake: Lake, label_set: str, recipe_id: str, settings: TrainSettings, progress: Progress
) -> dict[str, str]:
    """Give the key of the group of each image that is not left out, by arrival."""
    arrived = list_arrivals(lake, label_set, recipe_id)
    image_ids = [image_id for image_id, _ in arrived]
    paths = list_paths(lake, label_set) if settings.group else {}
    names = [find_names(settings.group or "", paths.get(image_id, ())) for image_id in image_ids]
    if settings.group and image_ids and not any(names):
        raise TrainError(
            f"train.group {settings.group!r}",
            f"is found in no path of {label_set}, such as {next(iter(paths.get(image_ids[0], ())), 'none')}",
            "Mend it, or leave it out: nothing would be kept together",
        )

    def place(key: str) -> str:
        # by time all groups may be joined, as each is given its split afterwards
        return "" if settings.split == "time" else assign_split(key, settings)

    if not (settings.near_duplicates and image_ids):
        return join_images(image_ids, names, [np.empty(0, np.int64)] * len(image_ids), lambda *_: False, place)
    features = read_features(lake, recipe_id, image_ids)
    same = compare_files(_find_files(lake, image_ids))
    with progress("compare", len(image_ids)) as advance:
        close = meet_earlier(features, np.array([time for _, time in arrived]), CLOSE, advance)
        return join_images(image_ids, names, close, same, place)


def _find_files(lake: Lake, image_ids: Sequence[str]) -> list[str | None]:
    copies = find_copies(lake, image_ids)
    return [choose_place(copies.get(image_id, [])) for image_id in image_ids]

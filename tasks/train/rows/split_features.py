"""Reading the features of images and of their views, split by split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.lake.lake import Lake
from storage.tables.features import add_views, filter_known, read_features
from storage.vectors.feature_file import Matrix
from tasks.train.rows.splits import SPLITS, Split

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitFeatures:
    """Features by split.

    A row of ``train`` [n, dim] is an image or a view of one; ``image_rows`` [n] says of which training image.
    ``validation`` and ``test`` are [m, dim], or [m, views * dim] if predictions average over views.
    """

    train: Matrix
    image_rows: Positions
    validation: Matrix
    test: Matrix


def read_split_features(
    lake: Lake, recipe_id: str, images: Mapping[str, Split], views: Sequence[str], *, average: bool
) -> SplitFeatures:
    """Read the features of images, sorted by split, and of the views that the lake has.

    Args:
        lake: An open lake.
        recipe_id: The recipe of the images.
        images: The split of each image.
        views: The recipes of the views.
        average: Whether to read the views of validation and test images, too.
    """
    counts, ids = Counter(images.values()), list(images)
    ends = np.cumsum([counts[split] for split in SPLITS])
    train, validation, test = np.split(read_features(lake, recipe_id, ids), ends[:-1])
    rows, image_rows = [train], [np.arange(len(train))]
    for view in views:
        stored = filter_known(lake, view, ids[: ends[0]])
        positions = [at for at, image_id in enumerate(ids[: ends[0]]) if image_id in stored]
        if positions:
            rows.append(read_features(lake, view, [ids[at] for at in positions]))
            image_rows.append(np.array(positions))
    if average:
        validation, test = (
            add_views(lake, own, views, ids[start:end])
            for own, start, end in ((validation, ends[0], ends[1]), (test, ends[1], ends[2]))
        )
    return SplitFeatures(np.concatenate(rows) if views else train, np.concatenate(image_rows), validation, test)

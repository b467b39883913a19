"""What a training reads: the features of its images and of their views, split by split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.lake.lake import Lake
from storage.tables.features import add_views, filter_known, read_features
from storage.vectors.feature_file import Matrix
from tasks.train.rows.splits import SPLITS, Split

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Features by split: ``train`` [n, dim], an image or a view of one a row, and to ``numbers`` [n] whose it is.

    ``validation`` and ``test`` are [m, dim], or [m, views * dim] where answers average over views.
    """

    train: Matrix
    numbers: Numbers
    validation: Matrix
    test: Matrix


def read_inputs(
    lake: Lake, recipe_id: str, images: Mapping[str, Split], views: Sequence[str], *, average: bool
) -> Inputs:
    """Read the features of images, which come by split, and of their views, as far as the lake has these.

    ``images`` has the split of each, ``views`` the views' recipes. To ``average``, those of validation and test images
    are read, too.
    """
    counts, ids = Counter(images.values()), list(images)
    ends = np.cumsum([counts[split] for split in SPLITS])
    train, validation, test = np.split(read_features(lake, recipe_id, ids), ends[:-1])
    rows, numbers = [train], [np.arange(len(train))]
    for view in views:
        known = filter_known(lake, view, ids[: ends[0]])
        seen = [at for at, image_id in enumerate(ids[: ends[0]]) if image_id in known]
        if seen:
            rows.append(read_features(lake, view, [ids[at] for at in seen]))
            numbers.append(np.array(seen))
    if average:
        validation, test = (
            add_views(lake, own, views, ids[start:end])
            for own, start, end in ((validation, ends[0], ends[1]), (test, ends[1], ends[2]))
        )
    return Inputs(np.concatenate(rows) if views else train, np.concatenate(numbers), validation, test)

"""Slices: on which kinds of images a head does worst."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.train.intervals import wilson

FEWEST = 20
"""Images of a slice: fewer say nothing, at an interval of 0.35 and more."""


def find_slices(
    right: npt.NDArray[np.bool_], names: npt.NDArray[np.str_], facts: pa.Table
) -> tuple[dict[str, Any], ...]:
    """Measure the accuracy of each slice, worst first: by the upper end of its interval, so that chance comes later.

    Args:
        right: whether each image's class was found, [n].
        names: the images' classes, [n]: each is a slice, too.
        facts: a row for each slice that an image is in: ``image``, its place, and ``slice`` and ``value`` in words.

    Returns:
        ``slice``, ``value``, ``images``, ``accuracy`` and its 95 % interval, for slices of 20 images and more whose
        accuracy is below that of all images.
    """
    classes = pa.table({"image": np.arange(len(names)), "slice": ["class"] * len(names), "value": names.tolist()})
    rows = pa.concat_tables([classes, facts.select(classes.column_names).cast(classes.schema)])
    rows = rows.append_column("right", pa.array(right[rows["image"].to_numpy()].astype(np.int64)))
    found = rows.group_by(["slice", "value"]).aggregate([("right", "count"), ("right", "sum")]).to_pylist()
    slices = [_measure(row) for row in found if row["right_count"] >= FEWEST]
    worse = [row for row in slices if row["accuracy"] < right.mean()]
    return tuple(sorted(worse, key=lambda row: (row["accuracy_high"], row["slice"], row["value"])))


def _measure(row: dict[str, Any]) -> dict[str, Any]:
    images, right = row["right_count"], row["right_sum"]
    low, high = map(float, wilson(right, images))
    accuracy = right / images
    place = {"slice": row["slice"], "value": row["value"], "images": images}
    return {**place, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}

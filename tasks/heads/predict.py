"""Predict all images of a label set from their stored features."""

import numpy as np
import pyarrow as pa

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.label_sets import list_sources
from storage.tables.models import list_predictable
from storage.tables.recipes import get_recipe
from storage.tables.trainings import Training
from tasks.heads.answers import apply_thresholds, is_multi_label, predict_classes
from tasks.heads.files import OpenLayers
from tasks.heads.heads import Classifier
from tasks.heads.load import read_head, read_head_inputs

CHUNK_VALUES = 1 << 26
"""The number of feature values read at once: a quarter of a gigabyte."""


def predict_stored(lake: Lake, home: Home, training: Training, open_layers: OpenLayers) -> pa.Table:
    """Predict every image of the label set's sources that has its features; see :func:`predict_images`."""
    image_ids = list_predictable(lake, list_sources(lake, training.label_set), training.recipe_id, training.averaged)
    return predict_images(lake, home, training, open_layers, image_ids)


def predict_images(
    lake: Lake, home: Home, training: Training, open_layers: OpenLayers, image_ids: list[str]
) -> pa.Table:
    """Predict images from their stored features.

    Returns:
        Columns image_id, class and probability; one row per image, or per label if the head is multi-label.
    """
    head, recipe = read_head(home, training, open_layers), get_recipe(lake, training.recipe_id)
    chunk = max(1, CHUNK_VALUES // (recipe.dim * head.views))
    starts = range(0, max(1, len(image_ids)), chunk)
    return pa.concat_tables(
        [_predict_chunk(lake, head, training, image_ids[start : start + chunk]) for start in starts]
    )


def _predict_chunk(lake: Lake, head: Classifier, training: Training, image_ids: list[str]) -> pa.Table:
    features = read_head_inputs(lake, training, image_ids)
    probabilities = head.probabilities(features)
    if is_multi_label(head):
        images, labels = np.nonzero(apply_thresholds(head, probabilities))
        ids, names, best = np.array(image_ids)[images], np.array(head.classes)[labels], probabilities[images, labels]
    else:
        names = predict_classes(head, features, probabilities)
        ids, best = np.array(image_ids), probabilities.max(axis=1)
    columns = {"image_id": ids.astype(str), "class": names.astype(str), "probability": best.astype(np.float32)}
    return pa.table(columns)

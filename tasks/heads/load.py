"""Reading the head of a recorded training, and its input features."""

from collections.abc import Sequence

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.features import add_views, read_features
from storage.tables.trainings import Training, head_path
from storage.vectors.feature_file import Matrix
from tasks.heads.files import OpenLayers, load_head
from tasks.heads.heads import Classifier


def read_head(home: Home, training: Training, open_layers: OpenLayers) -> Classifier:
    """Read the head of a training; ``open_layers`` opens the layers of a tail."""
    return load_head(head_path(home, training.training_id), home.backbones / training.recipe_id, open_layers)


def read_head_inputs(lake: Lake, training: Training, image_ids: Sequence[str]) -> Matrix:
    """Read the features of images for a trained head, with those of their views side by side.

    Returns:
        Features [n, dim], or [n, (1 + views) * dim] if predictions average over views.

    Raises:
        KeyError: if an image has no feature under the training's recipe.
    """
    features = read_features(lake, training.recipe_id, image_ids)
    return add_views(lake, features, training.averaged, image_ids) if training.averaged else features

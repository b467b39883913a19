"""Opening the head of a recorded training, and reading the features that it answers from."""

from collections.abc import Sequence

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.tables.features import add_views, read_features
from storage.tables.trainings import Training, head_path
from storage.vectors.feature_file import Matrix
from tasks.heads.heads import Classifier, OpenLayers, load_head


def read_head(home: Home, training: Training, open_layers: OpenLayers) -> Classifier:
    """Read a trained head; ``open_layers`` opens the layers of a tail."""
    return load_head(head_path(home, training.training_id), home.backbones / training.recipe_id, open_layers)


def read_head_inputs(lake: Lake, training: Training, image_ids: Sequence[str]) -> Matrix:
    """Read what a trained head is asked about images: their vectors, and beside them those of views.

    Returns:
        [n, dim], or [n, (1 + views) * dim] where its answers average over views.

    Raises:
        KeyError: where an image has no feature under the training's recipe.
    """
    own = read_features(lake, training.recipe_id, image_ids)
    return add_views(lake, own, training.averaged, image_ids) if training.averaged else own

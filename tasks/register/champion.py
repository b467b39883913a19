"""Follow the champion: record who it is, whoever made it so, and let it predict every image."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import ModelName
from storage.plural import pluralize
from storage.tables.label_sets import list_sources
from storage.tables.models import (
    Version,
    add_predictions,
    count_without_feature,
    find_champion,
    list_unpredicted,
    save_promotion,
)
from storage.tables.trainings import Training, find_training, head_path
from tasks.encoder.layers import open_layers
from tasks.heads.predict import predict_images
from tasks.register.registry.client import TRAINING_TAG, find_alias

if TYPE_CHECKING:
    from mlflow import MlflowClient

BY_HAND = "the alias was set in MLflow"

logger = logging.getLogger(__name__)


def follow_champion(
    client: "MlflowClient", lake: Lake, home: Home, name: ModelName, registry: str, alias: str, now: datetime
) -> None:
    """Record the version that has the alias as champion, unless it is recorded, and add the predictions that it lacks.

    An image can only be predicted if it has a feature under the champion's recipe; others are counted in a warning.
    """
    champion = find_alias(client, name, alias)
    if champion is None:
        return
    training = find_training(lake, champion.tags.get(TRAINING_TAG, ""))
    if training is None:
        logger.warning("the champion, version %s, is of another lake: it predicts no images here", champion.version)
        return
    version = Version(name, int(champion.version), training.training_id, str(champion.run_id), alias, registry)
    if find_champion(lake, name) != (registry, version.version):
        save_promotion(lake, version, BY_HAND, now)
    _predict_missing(lake, home, version, training, now)


def _predict_missing(lake: Lake, home: Home, version: Version, training: Training, now: datetime) -> None:
    sources = list_sources(lake, training.label_set)
    missing = list_unpredicted(lake, sources, training.recipe_id, version)
    if missing and head_path(home, training.training_id).exists():
        predictions = predict_images(lake, home, training, open_layers, missing)
        if len(predictions):  # a multi-label head may give an image no label at all
            add_predictions(lake, version, predictions, now)
            logger.info("the champion, version %d, predicted %s", version.version, pluralize(len(missing), "new image"))
    without = count_without_feature(lake, sources, training.recipe_id)
    if without:
        images = pluralize(without, "image")
        logger.warning("%s cannot be predicted by the champion: no feature under its --embed settings", images)

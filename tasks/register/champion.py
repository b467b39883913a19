"""Follow the champion: record who it is, whoever made it so, and let it predict every image."""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import ModelName, SourceName
from storage.plural import pluralize
from storage.tables.label_sets import list_sources
from storage.tables.models import (
    Version,
    add_predictions,
    count_unpredictable,
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


@dataclass(frozen=True)
class ChampionGap:
    """What the champion needs in order to predict the remaining images.

    Attributes:
        version: The champion.
        recipe_ids: The recipes under which it needs features.
        sources: The sources whose images it predicts.
        images: How many of their images lack such a feature, and have not failed.
    """

    version: Version
    recipe_ids: tuple[str, ...]
    sources: tuple[SourceName, ...]
    images: int


def follow_champion(
    client: "MlflowClient", lake: Lake, home: Home, name: ModelName, registry: str, alias: str, now: datetime
) -> ChampionGap | None:
    """Record the version that has the alias as champion, unless it is recorded, and add the predictions that it lacks.

    Returns:
        What keeps it from predicting the other images; None if it has predicted every image that can be embedded.
    """
    champion = find_alias(client, name, alias)
    if champion is None:
        return None
    training = find_training(lake, champion.tags.get(TRAINING_TAG, ""))
    if training is None:
        logger.warning("the champion, version %s, is of another lake: it predicts no images here", champion.version)
        return None
    version = Version(name, int(champion.version), training.training_id, str(champion.run_id), alias, registry)
    if find_champion(lake, name) != (registry, version.version):
        save_promotion(lake, version, BY_HAND, now)
    _, gap = predict_rest(lake, home, version, now)
    return gap


def predict_rest(lake: Lake, home: Home, version: Version, now: datetime) -> tuple[int, ChampionGap | None]:
    """Add the champion's predictions of images that have the features it needs, but no prediction.

    Returns:
        How many images it predicted, and what keeps it from predicting the others; None if there are none.
    """
    training = find_training(lake, version.training_id)
    if training is None or not head_path(home, training.training_id).exists():
        logger.warning("the head of the champion, version %d, is missing: it predicts nothing", version.version)
        return 0, None
    sources = list_sources(lake, training.label_set)
    missing = list_unpredicted(lake, sources, training, version)
    if missing:
        _predict(lake, home, version, training, missing, now)
    images = count_unpredictable(lake, sources, training)
    gap = ChampionGap(version, training.input_recipes, tuple(sources), images) if images else None
    return len(missing), gap


def _predict(lake: Lake, home: Home, version: Version, training: Training, image_ids: list[str], now: datetime) -> None:
    predictions = predict_images(lake, home, training, open_layers, image_ids)
    if len(predictions):  # a multi-label head may give an image no label at all
        add_predictions(lake, version, predictions, now)
        logger.info("the champion, version %d, predicted %s", version.version, pluralize(len(image_ids), "new image"))

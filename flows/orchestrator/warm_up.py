"""Import and open what later steps need while Prefect's server starts and the first steps wait for it."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from flows.settings import RunSettings
from storage.lake.attach import read_lake
from storage.tables.missing import FeatureRequest, count_images
from tasks.embed.find_recipe import find_recorded_recipe
from tasks.encoder.backbone.weights import find_weights
from tasks.encoder.pack import open_packed
from tasks.ingest.scan import is_unchanged
from tasks.register.registry.client import list_installed, load_mlflow
from tasks.register.settings import resolve_tracking_uri

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def warm_up(settings: RunSettings) -> Iterator[None]:
    """Warm up in a thread beside the block and wait for it at the end; an error is the run's to meet and report."""
    with ThreadPoolExecutor(1) as thread:
        warming = thread.submit(_load_libraries, settings)
        yield
    if error := warming.exception():
        logger.debug("warming up ended early", exc_info=error)


def _load_libraries(settings: RunSettings) -> None:
    """Load libraries in the order in which the run needs them."""
    is_new = _open_backbone(settings)
    load_mlflow(resolve_tracking_uri(settings.resolved_home, settings.registry))
    if is_new:
        list_installed()
        import scipy.optimize  # noqa: F401 - for the temperature

        from tasks.train import train  # noqa: F401 - imports the heads' solvers
        from tasks.train.report import page  # noqa: F401 - imports Matplotlib


def _open_backbone(settings: RunSettings) -> bool:
    """Open the backbone, and so torch, if a recorded recipe misses features; return whether anything is new."""
    home, embedding = settings.resolved_home, settings.embed
    recipe = find_recorded_recipe(home, embedding, find_weights(home, embedding.backbone, embedding.weights))
    if recipe is None:
        return False
    wanted = FeatureRequest(recipe.recipe_id, settings.source_name, settings.retry, datetime.now(UTC))
    with read_lake(home) as lake:
        missing = count_images(lake, wanted).missing
    is_new = bool(missing) or not is_unchanged(home, settings.source_name, settings.source_path, settings.ingest)
    if is_new:
        open_packed(home.backbones / recipe.recipe_id, embedding.batch, embedding.device, compiled=False)
    return is_new

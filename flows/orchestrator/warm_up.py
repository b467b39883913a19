"""While Prefect's server starts and the run's first steps wait for it, import and open what later ones need."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from flows.settings import RunSettings
from storage.lake.attach import read_lake
from storage.tables.missing import FeatureRequest, count_images
from tasks.embed.find_recipe import find_known
from tasks.encoder.backbone.weights import find_weights
from tasks.encoder.pack import open_packed
from tasks.ingest.scan import is_unchanged
from tasks.register.registry.client import list_installed, load_mlflow
from tasks.register.settings import resolve_tracking_uri

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def warm_up(settings: RunSettings) -> Iterator[None]:
    """Warm up in a thread beside the block and wait for it at its end; the run meets what fails, and reports it."""
    with ThreadPoolExecutor(1) as thread:
        warming = thread.submit(_prepare, settings)
        yield
    if error := warming.exception():
        logger.debug("warming up ended early", exc_info=error)


def _prepare(settings: RunSettings) -> None:
    """Load things in the order in which the run meets them."""
    is_new = _open_backbone(settings)
    load_mlflow(resolve_tracking_uri(settings.resolved_home, settings.registry))
    if is_new:
        list_installed()
        import scipy.optimize  # noqa: F401 - for the temperature

        from tasks.train import train  # noqa: F401 - bring Matplotlib and what fits heads
        from tasks.train.report import page  # noqa: F401 - bring Matplotlib and what fits heads


def _open_backbone(settings: RunSettings) -> bool:
    """Open the backbone where something is to be embedded by a recipe that is known; torch comes with it."""
    home, decided = settings.resolved_home, settings.embed
    recipe = find_known(home, decided, find_weights(home, decided.backbone, decided.weights))
    if recipe is None:
        return False
    wanted = FeatureRequest(recipe.recipe_id, settings.source_name, settings.retry, datetime.now(UTC))
    with read_lake(home) as lake:
        missing = count_images(lake, wanted).missing
    is_new = bool(missing) or not is_unchanged(home, settings.source_name, settings.source_path)
    if is_new:
        open_packed(home.backbones / recipe.recipe_id, decided.batch, decided.device, compiled=False)
    return is_new

"""The train flow: train a head on the labelled features of one snapshot."""

from flows.orchestrator.flow import flow
from flows.orchestrator.run_log import forward_logs
from flows.progress import show_progress
from flows.settings import RunSettings
from storage.errors import TrainError
from storage.lake.attach import read_lake
from storage.lake.snapshots import find_snapshot
from tasks.embed.find_recipe import find_recorded_recipe
from tasks.encoder.backbone.weights import find_weights
from tasks.train.step import fit_and_evaluate
from tasks.train.train import Trained, TrainingData

EMBED = "Compute them first: `frostline run FOLDER` with the same --embed settings"


@flow("train {settings.source}")
def train(settings: RunSettings, at: int | str | None = None, recipe_ids: tuple[str, ...] | None = None) -> Trained:
    """Train a head on the lake's features.

    Args:
        settings: The run's settings.
        at: The snapshot to train on, by number or tag; by default the newest.
        recipe_ids: What the settings mean, if it is already resolved: the images' recipe, then each view's.

    Raises:
        TrainError: if nothing was embedded under these settings, or the labels do not suffice.
    """
    settings.check()
    snapshot = None if at is None else _find_snapshot(settings, at)
    recipe_ids = recipe_ids or tuple(find_recipe_id(settings, view) for view in range(settings.embed.views + 1))
    data = TrainingData(settings.label_set, recipe_ids[0], recipe_ids[1:], snapshot)
    with forward_logs():
        return fit_and_evaluate(settings.resolved_home, data, settings.train, show_progress)


def _find_snapshot(settings: RunSettings, at: int | str) -> int:
    with read_lake(settings.resolved_home) as lake:
        return find_snapshot(lake, at)


def find_recipe_id(settings: RunSettings, view: int = 0) -> str:
    """Find the recipe that the settings mean for a view.

    Raises:
        TrainError: if nothing was embedded under it.
    """
    home = settings.resolved_home
    weights = find_weights(home, settings.embed.backbone, settings.embed.weights)
    recipe = find_recorded_recipe(home, settings.embed, weights, view)
    if recipe is None:
        raise TrainError(settings.source_name, "has no features under these settings", EMBED)
    return recipe.recipe_id

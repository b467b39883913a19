"""Which recipe the settings mean, and what is missing under it. Imports torch only for a recipe that is new."""

from dataclasses import dataclass

from storage.attach import read_lake
from storage.features import list_missing, measure_pace
from storage.paths import Home
from storage.recipe import Recipe
from storage.recipes import find_recipe
from tasks.embed.engine import Item
from tasks.embed.settings import EmbedSettings
from tasks.embed.weights import Weights, find_weights

SECONDS_A_SHARD = 30
SECONDS_WORTH_COMPILING = 120
SMALLEST, LARGEST, UNKNOWN = 64, 8192, 512


@dataclass(frozen=True)
class Resolved:
    """A recipe, the settings that mean it, and where its weights lie; ``new`` where these settings were never met."""

    recipe: Recipe
    request: dict[str, object]
    weights: Weights
    new: bool


@dataclass(frozen=True)
class Work:
    """What a run has to embed: shards of (image_id, path)."""

    images: int
    shards: tuple[tuple[Item, ...], ...]


def resolve(home: Home, settings: EmbedSettings) -> Resolved:
    """Find the recipe that the settings mean, deciding what they leave open where it is new; the lake stays as it is.

    Raises:
        BackboneError, WeightsError, SettingsError: where the settings name what does not exist or does not fit.
    """
    weights = find_weights(home, settings.backbone, settings.weights)
    if weights is None:
        from tasks.embed.fetch import fetch_weights

        home.make()
        weights = fetch_weights(home, settings.weights)
    request = request_of(settings, weights)
    known = find_known(home, settings, weights)
    if known:
        return Resolved(known, request, weights, new=False)
    from tasks.embed.resolve import resolve_recipe

    return Resolved(resolve_recipe(settings, weights), request, weights, new=True)


def find_known(home: Home, settings: EmbedSettings, weights: Weights | None) -> Recipe | None:
    """Find the recipe that these settings led to before; None where they never did."""
    if weights is None:
        return None
    with read_lake(home) as lake:
        return find_recipe(lake, request_of(settings, weights))


def request_of(settings: EmbedSettings, weights: Weights) -> dict[str, object]:
    """Write down what decides a recipe: the digest of the weights' bytes, not where they lie."""
    decides = {"backbone", "cut", "pooling", "resize", "crop", "interpolation", "decoder", "dtype", "stored"}
    named = (
        settings.weights if ":" in settings.weights else None
    )  # a name also brings the transform it was trained with
    return {**settings.model_dump(include=decides), "named": named, "weights": weights.digest}


def repays_compiling(settings: EmbedSettings, images: int, images_per_second: float) -> bool:
    """Decide whether so many images at the uncompiled pace are worth compiling for."""
    if settings.compile == "auto":
        return images > images_per_second * SECONDS_WORTH_COMPILING
    return settings.compile == "on"


def list_work(home: Home, source: str, recipe: Recipe, shard: int | None, *, retry: bool = False) -> Work:
    """List what is missing under a recipe, in shards worth about half a minute at the pace of the last ones."""
    with read_lake(home) as lake:
        missing = list_missing(lake, recipe.recipe_id, source, retry=retry)
        pace = measure_pace(lake, recipe.recipe_id)
    guess = min(LARGEST, max(SMALLEST, int(pace.images_per_second * SECONDS_A_SHARD))) if pace else UNKNOWN
    size = shard or guess
    items = list(zip(missing["image_id"].to_pylist(), missing["path"].to_pylist(), strict=True))
    return Work(len(items), tuple(tuple(items[at : at + size]) for at in range(0, len(items), size)))

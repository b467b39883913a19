"""Which recipe the settings mean. Imports torch only for one that is new."""

from dataclasses import dataclass, replace

from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.recipe import Recipe
from storage.tables.recipes import find_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights, find_weights

SECONDS_WORTH_COMPILING = 120


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe, the settings that mean it, and where its weights lie; ``new`` where these settings were never met."""

    recipe: Recipe
    request: dict[str, object]
    weights: Weights
    new: bool


def resolve(home: Home, settings: EmbedSettings, view: int = 0) -> ResolvedRecipe:
    """Find the recipe that the settings mean for a view, deciding what they leave open where it is new; writes nothing.

    Raises:
        BackboneError, WeightsError, SettingsError: where the settings name what does not exist or does not fit.
    """
    weights = find_weights(home, settings.backbone, settings.weights)
    if weights is None:
        from tasks.encoder.backbone.fetch_weights import fetch_weights

        home.make()
        weights = fetch_weights(home, settings.weights)
    request = request_of(settings, weights, view)
    known = find_known(home, settings, weights, view)
    if known:
        return ResolvedRecipe(known, request, weights, new=False)
    from tasks.embed.decide_recipe import decide_recipe

    return ResolvedRecipe(replace(decide_recipe(settings, weights), view=view), request, weights, new=True)


def find_known(home: Home, settings: EmbedSettings, weights: Weights | None, view: int = 0) -> Recipe | None:
    """Find the recipe that these settings led to before; None where they never did."""
    if weights is None:
        return None
    with read_lake(home) as lake:
        return find_recipe(lake, request_of(settings, weights, view))


def request_of(settings: EmbedSettings, weights: Weights, view: int = 0) -> dict[str, object]:
    """Write down what decides a recipe: the digest of the weights' bytes, not where they lie."""
    decides = {"backbone", "cut", "pooling", "resize", "crop", "interpolation", "decoder", "dtype", "stored"}
    named = (
        settings.weights if ":" in settings.weights else None
    )  # a name also brings the transform it was trained with
    request = {**settings.model_dump(include=decides), "named": named, "weights": weights.digest}
    return {**request, "view": view} if view else request  # as the first release, which had no views, wrote it


def repays_compiling(settings: EmbedSettings, images: int, images_per_second: float) -> bool:
    """Decide whether so many images at the uncompiled pace are worth compiling for."""
    if settings.compile == "auto":
        return images > images_per_second * SECONDS_WORTH_COMPILING
    return settings.compile == "on"

"""Finding the recipe for given settings. Imports torch only to decide a new one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, partial

from storage.errors import WeightsError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.recipe import Recipe
from storage.tables.recipes import find_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights, find_weights

SECONDS_WORTH_COMPILING = 120


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe, the settings that it was resolved from, and its weights; ``new`` if the lake does not have it yet."""

    recipe: Recipe
    request: dict[str, object]
    weights: Weights
    new: bool


def resolve(home: Home, settings: EmbedSettings, view: int = 0) -> ResolvedRecipe:
    """Find the recipe for settings and a view's number, or decide a new one; writes nothing to the lake.

    Raises:
        BackboneError, WeightsError, SettingsError: if the settings name something that does not exist or fit.
    """
    (resolved,) = _resolve_views(home, settings, [view])
    return resolved


def resolve_all(home: Home, settings: EmbedSettings) -> tuple[ResolvedRecipe, ...]:
    """Resolve the recipe of the images and those of their views, in order; see :func:`resolve`."""
    return _resolve_views(home, settings, range(settings.views + 1))


def _resolve_views(home: Home, settings: EmbedSettings, views: Iterable[int]) -> tuple[ResolvedRecipe, ...]:
    weights = _get_weights(home, settings)
    decide = cache(partial(_decide, settings, weights))  # the recipes of views differ only in the view's number
    resolved = []
    for view in views:
        recorded = find_recorded_recipe(home, settings, weights, view)
        recipe = recorded or replace(decide(), view=view)
        resolved.append(ResolvedRecipe(recipe, make_request(settings, weights, view), weights, new=recorded is None))
    return tuple(resolved)


def _get_weights(home: Home, settings: EmbedSettings) -> Weights:
    try:
        weights = find_weights(home, settings.backbone, settings.weights)
    except WeightsError:
        _check_backbone(settings)
        raise
    if weights is None:
        _check_backbone(settings)
        from tasks.encoder.backbone.fetch_weights import fetch_weights

        home.make()
        weights = fetch_weights(home, settings.weights)
    return weights


def _check_backbone(settings: EmbedSettings) -> None:
    """Refuse a network that does not exist, before its weights are looked for in vain."""
    from tasks.encoder.backbone.networks import check_name

    check_name(settings.backbone)


def _decide(settings: EmbedSettings, weights: Weights) -> Recipe:
    from tasks.embed.decide_recipe import decide_recipe

    return decide_recipe(settings, weights)


def find_recorded_recipe(home: Home, settings: EmbedSettings, weights: Weights | None, view: int = 0) -> Recipe | None:
    """Find the recipe that the lake has for these settings; return None if it has none."""
    if weights is None:
        return None
    with read_lake(home) as lake:
        return find_recipe(lake, make_request(settings, weights, view))


def make_request(settings: EmbedSettings, weights: Weights, view: int = 0) -> dict[str, object]:
    """Collect everything that determines a recipe; weights count by the digest of their bytes, not by their path."""
    fields = {"backbone", "cut", "pooling", "resize", "crop", "interpolation", "decoder", "dtype", "stored"}
    named = settings.weights if ":" in settings.weights else None  # a name implies the transform used in training
    request = {**settings.model_dump(include=fields), "named": named, "weights": weights.digest}
    return {**request, "view": view} if view else request  # the first release had no views: its requests must match


def is_compiling_worthwhile(settings: EmbedSettings, images: int, images_per_second: float) -> bool:
    """Return whether to compile for this many images, given the uncompiled pace."""
    if settings.compile == "auto":
        return images > images_per_second * SECONDS_WORTH_COMPILING
    return settings.compile == "on"

"""Opening a recipe of the lake again by its id, whatever settings once led to it."""

from collections.abc import Iterator

from storage.errors import WeightsError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.recipe import Recipe
from storage.tables.recipes import get_recipe
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.encoder.backbone.weights import EMBEDDED, SUFFIXES, Weights, digest_file, find_weights
from tasks.encoder.pack import pack_backbone, read_packed


def reopen(home: Home, recipe_id: str) -> ResolvedRecipe:
    """Read a recipe of the lake, and pack its backbone if this home does not have it: homes may share a lake.

    Raises:
        WeightsError: if its weights are not on this machine any more.
    """
    with read_lake(home) as lake:
        recipe = get_recipe(lake, recipe_id)
    folder = home.backbones / recipe_id
    if not folder.exists():
        pack_backbone(recipe, _find_weights(home, recipe), folder)
    _, weights = read_packed(folder)
    return ResolvedRecipe(recipe, {}, weights, new=False)


def _find_weights(home: Home, recipe: Recipe) -> Weights:
    """Find a recipe's weights by their digest, as their path is not part of the recipe."""
    for weights in _list_weights(home, recipe):
        if weights.digest == recipe.weights:
            return weights
    raise WeightsError(
        f"weights {recipe.weights[:12]} of {recipe.architecture}",
        "are neither in this home nor shipped with Frostline",
        f"Copy the folder {recipe.recipe_id} of another home's {home.backbones.name} into {home.backbones}",
    )


def _list_weights(home: Home, recipe: Recipe) -> Iterator[Weights]:
    """List the weights on this machine that may be a recipe's."""
    for description in home.backbones.glob("*/recipe.json"):
        packed, weights = read_packed(description.parent)
        if packed.weights == recipe.weights:
            yield weights
    for path in home.weights.glob("*"):
        if path.suffix in SUFFIXES:
            yield Weights(path, digest_file(path))
    if recipe.architecture == EMBEDDED:
        embedded = find_weights(home, EMBEDDED, "embedded")
        if embedded:
            yield embedded

"""The recipes table, and the settings that led to each recipe."""

from dataclasses import replace
from datetime import datetime

from storage.canonical import canonical, digest
from storage.lake.lake import Lake
from storage.recipe import Recipe, read_recipe


def find_recipe(lake: Lake, request: dict[str, object]) -> Recipe | None:
    """Find the recipe that the same settings led to before."""
    found = lake.rows(
        "SELECT recipe FROM recipe_requests JOIN recipes USING (recipe_id) WHERE request_id = ?", [digest(request)]
    )
    return read_recipe(found[0][0]) if found else None


def get_recipe(lake: Lake, recipe_id: str) -> Recipe:
    """Read a recipe of the lake by its id."""
    return read_recipe(lake.value("SELECT recipe FROM recipes WHERE recipe_id = ?", [recipe_id]))


def save_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> Recipe:
    """Record a recipe and the settings that led to it; return the one recorded first, by this run or another."""
    if find_recipe(lake, request) is None:
        lake.commit(lambda: _write_recipe(lake, request, recipe, now))
    return find_recipe(lake, request) or recipe


def renew_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> Recipe:
    """Record and return the next edition of a recipe; from now on the settings lead to it."""
    renewed = replace(recipe, edition=recipe.edition + 1)

    def write() -> None:
        lake.execute("DELETE FROM recipe_requests WHERE request_id = ?", [digest(request)])
        _write_recipe(lake, request, renewed, now)

    lake.commit(write)
    return renewed


def _write_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> None:
    write_row(lake, recipe, now)
    lake.execute(
        "INSERT INTO recipe_requests SELECT $1, $2, $3, $4 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipe_requests WHERE request_id = $1)",
        [digest(request), canonical(request), recipe.recipe_id, now],
    )


def write_row(lake: Lake, recipe: Recipe, made_at: datetime) -> None:
    """Insert a recipe, unless it is present, within a transaction."""
    lake.execute(
        "INSERT INTO recipes SELECT $1, $2, $3, $4, $5, $6, $7 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipes WHERE recipe_id = $1)",
        [recipe.recipe_id, recipe.text, recipe.architecture, recipe.weights, recipe.cut, recipe.dim, made_at],
    )

"""The recipes that a lake knows, the settings that led to them, and whether they explain its vectors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial

from storage.canonical import canonical, digest
from storage.catalog import list_live
from storage.checks import BACKUP, Finding
from storage.lake import Lake
from storage.recipe import Recipe, read_recipe


def find_recipe(lake: Lake, request: dict[str, object]) -> Recipe | None:
    """Find the recipe that these settings led to before."""
    found = lake.rows(
        "SELECT recipe FROM recipe_requests JOIN recipes USING (recipe_id) WHERE request_id = ?", [digest(request)]
    )
    return read_recipe(found[0][0]) if found else None


def get_recipe(lake: Lake, recipe_id: str) -> Recipe:
    """Read a recipe that the lake has."""
    return read_recipe(lake.value("SELECT recipe FROM recipes WHERE recipe_id = ?", [recipe_id]))


def save_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> None:
    """Record a recipe and the settings that led to it, unless both are known."""
    if find_recipe(lake, request) is None:
        lake.commit(lambda: _write_recipe(lake, request, recipe, now))


def renew_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> Recipe:
    """Let settings lead to the next edition of a recipe from now on, beside the old; gives it."""
    renewed = replace(recipe, edition=recipe.edition + 1)

    def write() -> None:
        lake.execute("DELETE FROM recipe_requests WHERE request_id = ?", [digest(request)])
        _write_recipe(lake, request, renewed, now)

    lake.commit(write)
    return renewed


def check_recipes(lake: Lake, now: datetime) -> Iterator[Finding]:
    """Look for recipes that are not what their ids say, and for features of recipes that a backbone still names."""
    known = lake.rows("SELECT recipe_id, recipe, architecture, weights, cut, dim FROM recipes ORDER BY ALL")
    for recipe_id, text, *columns in known:
        if not is_of(text, recipe_id):
            repair = f"{BACKUP}, or delete its features and the recipe: their numbers cannot be explained"
            yield Finding("recipe", f"recipe {recipe_id}: its text is not what the id is the hash of", repair)
            continue
        recipe = read_recipe(text)
        if columns != [recipe.architecture, recipe.weights, recipe.cut, recipe.dim]:
            what = f"recipe {recipe_id}: its columns are not what its text says"
            yield Finding("recipe", what, "they are written again from the text", partial(_rewrite, lake, recipe, now))
    folders = {file.path.split("/")[2] for file in list_live(lake) if file.table == "features"}
    for recipe_id in sorted(folder.removeprefix("recipe_id=") for folder in folders):
        packed = lake.home.backbones / recipe_id / "recipe.json"
        if recipe_id in [name for name, *_ in known] or not packed.is_file():
            continue
        text = packed.read_text(encoding="utf-8")
        if is_of(text, recipe_id):
            what = f"recipe {recipe_id}: its row is gone, its features are there"
            mend = partial(_rewrite, lake, read_recipe(text), now)
            yield Finding("recipe", what, f"it is read from {packed}", mend)


def is_of(text: str, recipe_id: str) -> bool:
    """Tell whether a recipe's text is the one that its id is the hash of."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return digest(value) == recipe_id and canonical(value) == text


def _write_recipe(lake: Lake, request: dict[str, object], recipe: Recipe, now: datetime) -> None:
    _write_row(lake, recipe, now)
    lake.execute(
        "INSERT INTO recipe_requests SELECT $1, $2, $3, $4 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipe_requests WHERE request_id = $1)",
        [digest(request), canonical(request), recipe.recipe_id, now],
    )


def _write_row(lake: Lake, recipe: Recipe, made_at: datetime) -> None:
    lake.execute(
        "INSERT INTO recipes SELECT $1, $2, $3, $4, $5, $6, $7 "
        "WHERE NOT EXISTS (SELECT 1 FROM recipes WHERE recipe_id = $1)",
        [recipe.recipe_id, recipe.text, recipe.architecture, recipe.weights, recipe.cut, recipe.dim, made_at],
    )


def _rewrite(lake: Lake, recipe: Recipe, now: datetime) -> None:
    """Put a recipe's row in its place; when it was made is only known where the row was there."""

    def write() -> None:
        sql = "SELECT coalesce(min(made_at), ?) FROM recipes WHERE recipe_id = ?"
        made_at = lake.value(sql, [now, recipe.recipe_id])
        lake.execute("DELETE FROM recipes WHERE recipe_id = ?", [recipe.recipe_id])
        _write_row(lake, recipe, made_at)

    lake.commit(write)

"""Checks of the recipes table, for the doctor."""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import partial

from storage.canonical import canonical, digest
from storage.care.row_checks import BACKUP, Finding
from storage.lake.ducklake_files import list_live
from storage.lake.lake import Lake
from storage.recipe import Recipe, read_recipe
from storage.tables.recipes import write_row


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
            fix = partial(_rewrite, lake, read_recipe(text), now)
            yield Finding("recipe", what, f"it is read from {packed}", fix)


def is_of(text: str, recipe_id: str) -> bool:
    """Tell whether a recipe's text is the one that its id is the hash of."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return digest(value) == recipe_id and canonical(value) == text


def _rewrite(lake: Lake, recipe: Recipe, now: datetime) -> None:
    """Put a recipe's row in its place; when it was made is only known where the row was there."""

    def write() -> None:
        sql = "SELECT coalesce(min(made_at), ?) FROM recipes WHERE recipe_id = ?"
        made_at = lake.value(sql, [now, recipe.recipe_id])
        lake.execute("DELETE FROM recipes WHERE recipe_id = ?", [recipe.recipe_id])
        write_row(lake, recipe, made_at)

    lake.commit(write)

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
    """Find recipes that do not match their ids, and recipes whose row is missing but whose backbone is there."""
    recipes = lake.rows("SELECT recipe_id, recipe, architecture, weights, cut, dim FROM recipes ORDER BY ALL")
    for recipe_id, text, *columns in recipes:
        if not is_of(text, recipe_id):
            repair = f"{BACKUP}, or delete the recipe and its features: what made them is unknown"
            yield Finding("recipe", f"recipe {recipe_id}: its id is not the hash of its text", repair)
            continue
        recipe = read_recipe(text)
        if columns != [recipe.architecture, recipe.weights, recipe.cut, recipe.dim]:
            what = f"recipe {recipe_id}: its columns do not match its text"
            yield Finding("recipe", what, "they are written again from the text", partial(_rewrite, lake, recipe, now))
    folders = {file.path.split("/")[2] for file in list_live(lake) if file.table == "features"}
    for recipe_id in sorted(folder.removeprefix("recipe_id=") for folder in folders):
        packed = lake.home.backbones / recipe_id / "recipe.json"
        if recipe_id in [name for name, *_ in recipes] or not packed.is_file():
            continue
        text = packed.read_text(encoding="utf-8")
        if is_of(text, recipe_id):
            what = f"recipe {recipe_id}: its row is missing, its features are there"
            fix = partial(_rewrite, lake, read_recipe(text), now)
            yield Finding("recipe", what, f"it is read from {packed}", fix)


def is_of(text: str, recipe_id: str) -> bool:
    """Return whether a recipe's id is the hash of its text."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return digest(value) == recipe_id and canonical(value) == text


def _rewrite(lake: Lake, recipe: Recipe, now: datetime) -> None:
    """Write the row of a recipe again; ``made_at`` is kept if the row exists."""

    def write() -> None:
        sql = "SELECT coalesce(min(made_at), ?) FROM recipes WHERE recipe_id = ?"
        made_at = lake.value(sql, [now, recipe.recipe_id])
        lake.execute("DELETE FROM recipes WHERE recipe_id = ?", [recipe.recipe_id])
        write_row(lake, recipe, made_at)

    lake.commit(write)

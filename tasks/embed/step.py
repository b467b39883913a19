"""The embed step's tasks."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage import recipes
from storage.attach import open_lake, read_lake
from storage.features import commit_shard, list_missing
from storage.paths import Home
from storage.progress import Advance
from storage.recipe import Recipe
from storage.vectors import Shard
from tasks.embed.engine import Item, count_cores, embed_shard
from tasks.embed.pack import keep_open, pack_backbone
from tasks.embed.plan import Resolved, Work, list_work, resolve
from tasks.embed.settings import EmbedSettings
from tasks.embed.watch import watch


@task(task_run_name="resolve {settings.backbone}", cache_policy=NO_CACHE, persist_result=False)
def resolve_recipe(home: Home, settings: EmbedSettings) -> Resolved:
    """Find or decide the recipe that the settings mean; writes nothing to the lake."""
    return resolve(home, settings)


@task(task_run_name="keep recipe", cache_policy=NO_CACHE, persist_result=False)
def keep_recipe(home: Home, resolved: Resolved) -> None:
    """Record the recipe and keep its backbone in the home."""
    with open_lake(home) as lake:
        recipes.save_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    pack_backbone(resolved.recipe, resolved.weights, home.backbones / resolved.recipe.recipe_id)


@task(task_run_name="renew recipe", cache_policy=NO_CACHE, persist_result=False)
def renew_recipe(home: Home, resolved: Resolved) -> Resolved:
    """Put the next edition of a recipe in its place."""
    with open_lake(home) as lake:
        renewed = recipes.renew_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    return replace(resolved, recipe=renewed, new=True)


@task(task_run_name="count missing of {source}", cache_policy=NO_CACHE, persist_result=False)
def count_missing(home: Home, source: str, recipe_id: str, *, retry: bool) -> int:
    """Count the images of a source that have no feature under a recipe."""
    with read_lake(home) as lake:
        return int(list_missing(lake, recipe_id, source, retry=retry).num_rows)


@task(task_run_name="check canaries of {source}", cache_policy=NO_CACHE, persist_result=False)
def check_canaries(home: Home, source: str, recipe_id: str, images: int, settings: EmbedSettings) -> bool:
    """Refuse where this machine computes other vectors than the recipe's; tells whether compiling repays."""
    return watch(home, source, recipe_id, images, settings)


@task(task_run_name="list missing of {source}", cache_policy=NO_CACHE, persist_result=False)
def list_shards(home: Home, source: str, recipe: Recipe, shard: int | None, *, retry: bool) -> Work:
    """List what is missing under a recipe, in shards."""
    return list_work(home, source, recipe, shard, retry=retry)


@task(task_run_name="embed shard {number}", cache_policy=NO_CACHE, persist_result=False)
def run_shard(
    home: Home,
    source: str,
    root: Path,
    recipe_id: str,
    number: int,  # noqa: ARG001 - names the task run
    items: tuple[Item, ...],
    settings: EmbedSettings,
    advance: Advance,
) -> Shard:
    """Embed one shard and write its Parquet file, not yet part of the lake."""
    embedder = keep_open(home.backbones / recipe_id, settings.batch, settings.device, compiled=settings.compile == "on")
    return embed_shard(home, source, root, embedder, items, settings.decoders or count_cores(), advance)


@task(task_run_name="commit shard {number}", cache_policy=NO_CACHE, persist_result=False)
def keep_shard(home: Home, number: int, shard: Shard) -> int:  # noqa: ARG001 - names the task run
    """Commit one shard; gives how many features it added."""
    with open_lake(home) as lake:
        return commit_shard(lake, shard, datetime.now(UTC))

"""The embed step's tasks."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.features import commit_shard
from storage.lake import open_lake
from storage.paths import open_home
from storage.progress import Advance
from storage.recipe import Recipe
from storage.recipes import save_recipe
from storage.vectors import Shard
from tasks.embed.engine import Embedder, Item, embed_shard
from tasks.embed.pack import open_embedder, pack_backbone
from tasks.embed.plan import Resolved, Work, list_work, resolve
from tasks.embed.settings import EmbedSettings


@task(task_run_name="resolve {settings.backbone}", cache_policy=NO_CACHE, persist_result=False)
def resolve_recipe(home: Path, settings: EmbedSettings) -> Resolved:
    """Find or decide the recipe that the settings mean; writes nothing to the lake."""
    return resolve(open_home(home), settings)


@task(task_run_name="keep recipe", cache_policy=NO_CACHE, persist_result=False)
def keep_recipe(home: Path, resolved: Resolved) -> None:
    """Record the recipe and keep its backbone in the home."""
    place = open_home(home)
    with open_lake(place) as lake:
        save_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    pack_backbone(resolved.recipe, resolved.weights, place.backbones / resolved.recipe.recipe_id)


@task(task_run_name="list missing of {source}", cache_policy=NO_CACHE, persist_result=False)
def list_shards(home: Path, source: str, recipe: Recipe, shard: int | None, *, retry: bool) -> Work:
    """List what is missing under a recipe, in shards."""
    return list_work(open_home(home), source, recipe, shard, retry=retry)


@task(task_run_name="embed shard {number}", cache_policy=NO_CACHE, persist_result=False)
def run_shard(
    home: Path,
    source: str,
    root: Path,
    recipe_id: str,
    number: int,  # noqa: ARG001 - names the task run
    items: tuple[Item, ...],
    settings: EmbedSettings,
    advance: Advance,
) -> Shard:
    """Embed one shard and write its Parquet file, not yet part of the lake."""
    place = open_home(home)
    embedder = _open(place.backbones / recipe_id, settings.batch, settings.device)
    return embed_shard(place, source, root, embedder, items, settings.decoders, advance)


@task(task_run_name="commit shard {number}", cache_policy=NO_CACHE, persist_result=False)
def keep_shard(home: Path, number: int, shard: Shard) -> int:  # noqa: ARG001 - names the task run
    """Commit one shard; gives how many features it added."""
    with open_lake(open_home(home)) as lake:
        return commit_shard(lake, shard, datetime.now(UTC))


@lru_cache(maxsize=1)
def _open(folder: Path, batch: int, device: str) -> Embedder:
    """Keep the backbone loaded from one shard to the next."""
    return open_embedder(folder, batch, device)

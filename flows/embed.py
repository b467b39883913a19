"""The embed flow: what has no feature yet gets one."""

from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.progress import show_progress
from flows.settings import RunSettings
from storage.errors import FailureBudgetError
from storage.features import count_failed, count_features
from storage.lake import read_lake
from storage.paths import open_home
from storage.vectors import Shard
from tasks.embed.plan import Work
from tasks.embed.step import keep_recipe, keep_shard, list_shards, resolve_recipe, run_shard


@dataclass(frozen=True)
class Embedded:
    """What an embed run did; ``calls`` counts the images that went through the backbone."""

    recipe_id: str
    computed: int
    reused: int
    failed: int
    calls: int


@flow(flow_run_name="embed {settings.source}", persist_result=False)
def embed(settings: RunSettings) -> Embedded:
    """Compute the features that are missing under the recipe that the settings mean, shard by shard."""
    resolved = resolve_recipe(settings.home, settings.embed)
    recipe = resolved.recipe
    work = list_shards(settings.home, settings.title, recipe, settings.embed.shard, retry=settings.retry)
    if work.images or resolved.new:
        keep_recipe(settings.home, resolved)
    shards, added = _run(settings, recipe.recipe_id, work)
    done = _count(settings.home, settings.title, recipe.recipe_id, shards, added)
    _check_budget(settings, done)
    return done


def _run(settings: RunSettings, recipe_id: str, work: Work) -> tuple[list[Shard], int]:
    shards, added = [], 0
    with show_progress("embed", work.images) as advance:
        for number, items in enumerate(work.shards, 1):
            shard = run_shard(
                settings.home, settings.title, settings.root, recipe_id, number, items, settings.embed, advance
            )
            added += keep_shard(settings.home, number, shard)
            shards.append(shard)
    return shards, added


def _check_budget(settings: RunSettings, done: Embedded) -> None:
    """Refuse to go on where too much of the whole source has failed; one new image that fails is no reason."""
    total = done.computed + done.reused + done.failed
    if done.failed > settings.embed.max_failed * total:
        raise FailureBudgetError(
            f"{done.failed} of {total} images",
            f"failed, more than the share of {settings.embed.max_failed} that embed.max_failed allows",
            "See `frostline sql 'from failures'`, mend them, or raise --embed.max-failed",
        )


def _count(home: Path, source: str, recipe_id: str, shards: list[Shard], added: int) -> Embedded:
    with read_lake(open_home(home)) as lake:
        have = count_features(lake, recipe_id, source)
        failed = count_failed(lake, recipe_id, source)
    return Embedded(recipe_id, added, have - added, failed, sum(shard.calls for shard in shards))

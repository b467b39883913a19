"""The embed flow: what has no feature yet gets one."""

from dataclasses import dataclass

from prefect import flow

from flows.progress import show_progress
from flows.settings import RunSettings
from storage.attach import read_lake
from storage.errors import FailureBudgetError, NumbersChangedError
from storage.features import count_failed, count_features
from storage.paths import Home
from storage.recipe import Recipe
from storage.vectors import Shard
from tasks.embed.plan import Resolved, Work
from tasks.embed.step import (
    check_canaries,
    count_missing,
    keep_recipe,
    keep_shard,
    list_shards,
    renew_recipe,
    resolve_recipe,
    run_shard,
)


@dataclass(frozen=True)
class Embedded:
    """What an embed run did; ``calls`` counts the images that went through the backbone, canaries apart.

    ``bytes`` were read in ``seconds``; ``bound`` says for which share of them each stage was the one to wait for.
    """

    recipe_id: str
    computed: int
    reused: int
    failed: int
    calls: int
    bytes: int
    seconds: float
    bound: dict[str, float]


@flow(flow_run_name="embed {settings.source}", persist_result=False)
def embed(settings: RunSettings) -> Embedded:
    """Compute the features that are missing under the recipe that the settings mean, shard by shard."""
    resolved = resolve_recipe(settings.place, settings.embed)
    missing = count_missing(settings.place, settings.title, resolved.recipe.recipe_id, retry=settings.retry)
    packed = (settings.place.backbones / resolved.recipe.recipe_id).exists()  # another home may share the lake
    if missing or resolved.new or not packed:
        keep_recipe(settings.place, resolved)
    recipe, compiled = _prove(settings, resolved, missing) if missing else (resolved.recipe, False)
    work = list_shards(settings.place, settings.title, recipe, settings.embed.shard, retry=settings.retry)
    shards, added = _run(settings, recipe.recipe_id, work, compiled=compiled)
    done = _count(settings.place, settings.title, recipe.recipe_id, shards, added)
    _check_budget(settings, done)
    return done


def _prove(settings: RunSettings, resolved: Resolved, missing: int) -> tuple[Recipe, bool]:
    """Prove that this machine computes the recipe's numbers, or go on with its next edition where the user says so."""
    home, source = settings.place, settings.title
    try:
        return resolved.recipe, check_canaries(home, source, resolved.recipe.recipe_id, missing, settings.embed)
    except NumbersChangedError:
        if not settings.new_recipe:
            raise
    renewed = renew_recipe(home, resolved)
    keep_recipe(home, renewed)
    return _prove(settings, renewed, missing)


def _run(settings: RunSettings, recipe_id: str, work: Work, *, compiled: bool) -> tuple[list[Shard], int]:
    shards, added = [], 0
    decided = settings.embed.model_copy(update={"compile": "on" if compiled else "off"})
    with show_progress("embed", work.images) as advance:
        for number, items in enumerate(work.shards, 1):
            shard = run_shard(settings.place, settings.title, settings.root, recipe_id, number, items, decided, advance)
            added += keep_shard(settings.place, number, shard)
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


def _count(home: Home, source: str, recipe_id: str, shards: list[Shard], added: int) -> Embedded:
    with read_lake(home) as lake:
        have = count_features(lake, recipe_id, source)
        failed = count_failed(lake, recipe_id, source)
    return Embedded(
        recipe_id,
        added,
        have - added,
        failed,
        sum(shard.calls for shard in shards),
        sum(shard.bytes for shard in shards),
        sum(shard.seconds for shard in shards),
        _share(shards),
    )


def _share(shards: list[Shard]) -> dict[str, float]:
    """Add up the stages' waits, as shares of their sum."""
    total = sum(sum(shard.waits.values()) for shard in shards)
    if not total:
        return {}
    stages = {stage for shard in shards for stage in shard.waits}
    shares = {stage: sum(shard.waits.get(stage, 0.0) for shard in shards) / total for stage in stages}
    return dict(sorted(((stage, round(share, 3)) for stage, share in shares.items()), key=lambda part: -part[1]))

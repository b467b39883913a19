"""The embed flow: compute the features that are missing."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flows.operations.space import measure_room
from flows.orchestrator.flow import flow
from flows.orchestrator.run_log import forward_logs
from flows.progress import show_progress
from flows.reports.draft import note_features
from flows.reports.throughput import Throughput, measure
from flows.runners import SequentialRunner, ShardRunner
from flows.settings import RunSettings
from storage.errors import FailureBudgetError, NumbersChangedError
from storage.lake.attach import read_lake
from storage.plural import pluralize
from storage.recipe import Recipe
from storage.sources.open_image import folder_source
from storage.tables.features import count_failed
from storage.tables.missing import FIRST_ID, FeatureRequest
from storage.vectors.feature_file import Shard
from tasks.embed.claim import release_on_error
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.embed.step import (
    ShardJob,
    check_canaries,
    claim_shard,
    commit_features,
    count_images,
    drop_lost,
    record_recipe,
    renew_recipe,
    resolve_recipes,
)
from tasks.encoder.runtimes.exported import Runtime

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """The result of an embed run: counts of features, those of views included, and the throughput without canaries.

    ``view_recipe_ids`` are the recipes of the views, in order; ``recipe_id`` is that of the images.
    """

    recipe_id: str
    view_recipe_ids: tuple[str, ...]
    computed: int
    reused: int
    failed: int
    throughput: Throughput


@dataclass(frozen=True)
class RecipeResult:
    """The result under one recipe: of the ``present`` features, ``added`` are new."""

    recipe_id: str
    added: int
    present: int
    failed: int
    shards: list[Shard]


@flow("embed {settings.source}")
def embed(settings: RunSettings, recipes: tuple[ResolvedRecipe, ...] | None = None) -> Embedded:
    """Compute the missing features of the images, then of each view.

    Args:
        settings: The run's settings.
        recipes: What the settings mean, if it is already resolved: the images' recipe, then each view's.

    Raises:
        NumbersChangedError: if this machine computes other vectors than a recipe's.
        FailureBudgetError: if more images failed than ``embed.max_failed`` allows.
    """
    with forward_logs():
        recipes = recipes or resolve_recipes(settings.resolved_home, settings.embed)
        results = [embed_recipe(settings, resolved) for resolved in recipes]
    embedded = _sum_results(results)
    _check_budget(settings, embedded)
    return embedded


def _sum_results(results: list[RecipeResult]) -> Embedded:
    recipe_id, *view_recipe_ids = (result.recipe_id for result in results)
    added = sum(result.added for result in results)
    reused = sum(result.present for result in results) - added
    failed = sum(result.failed for result in results)
    throughput = measure([shard for result in results for shard in result.shards])
    return Embedded(recipe_id, tuple(view_recipe_ids), added, reused, failed, throughput)


def embed_recipe(settings: RunSettings, resolved: ResolvedRecipe) -> RecipeResult:
    """Compute what is missing under one recipe, shard by shard, within a flow.

    Raises:
        NumbersChangedError: if this machine computes other vectors than the recipe's.
        NoSpaceError: if the features would fill the disk.
    """
    home = settings.resolved_home
    packed = (home.backbones / resolved.recipe.recipe_id).exists()  # another home may share the lake
    if resolved.new or not packed:
        resolved = record_recipe(home, resolved)
    wanted = FeatureRequest(resolved.recipe.recipe_id, settings.source_name, settings.retry, datetime.now(UTC))
    drop_lost(home, wanted.recipe_id)
    counts = count_images(home, wanted)
    shards, added = list[Shard](), 0
    if counts.missing:
        measure_room(home, counts.missing, resolved.recipe, resolved.weights).check()
        recipe, runtime = _check_numbers(settings, resolved, counts.missing)
        wanted = replace(wanted, recipe_id=recipe.recipe_id)
        shards, added = _run_shards(SequentialRunner(), settings, wanted, counts.missing, runtime)
        counts = count_images(home, wanted)
    return RecipeResult(wanted.recipe_id, added, counts.present, _count_failed(settings, wanted), shards)


def _check_numbers(settings: RunSettings, resolved: ResolvedRecipe, missing: int) -> tuple[Recipe, Runtime]:
    """Check that this machine computes the recipe's numbers, or renew the recipe if the settings allow it.

    Returns:
        The recipe and the runtime to use.
    """
    home, source = settings.resolved_home, settings.source_name
    try:
        return resolved.recipe, check_canaries(home, source, resolved.recipe.recipe_id, missing, settings.embed)
    except NumbersChangedError:
        if not settings.new_recipe:
            raise
    renewed = record_recipe(home, renew_recipe(home, resolved))
    return _check_numbers(settings, renewed, missing)


def _run_shards(
    runner: ShardRunner, settings: RunSettings, wanted: FeatureRequest, missing: int, runtime: Runtime
) -> tuple[list[Shard], int]:
    """Embed all shards and commit each; return them and the number of features added."""
    shards, added = list[Shard](), 0
    with show_progress("embed", missing) as advance, release_on_error(settings.resolved_home) as holder:
        for job, shard in runner.run(_claim_jobs(settings, wanted, holder, runtime)):
            committed = commit_features(job, shard)
            note_features(committed)
            added += committed
            advance(shard.finished)
            shards.append(shard)
            images = pluralize(shard.finished, "image")
            logger.info("shard %d: %s · %s", job.number, images, measure([shard]))
    return shards, added


def _claim_jobs(settings: RunSettings, wanted: FeatureRequest, holder: str, runtime: Runtime) -> Iterator[ShardJob]:
    """Claim one shard after another until nothing is missing."""
    home, source = settings.resolved_home, folder_source(settings.source_name, settings.source_path)
    embedding, number, after = settings.embed, 1, FIRST_ID
    while lease := claim_shard(home, wanted, number, embedding.shard, holder, after):
        yield ShardJob(home, wanted.recipe_id, source, number, lease, embedding, runtime)
        number, after = number + 1, lease.items[-1].image_id


def _check_budget(settings: RunSettings, embedded: Embedded) -> None:
    """Refuse to go on if too large a share of the whole source failed; a single new image that fails is no reason."""
    total = embedded.computed + embedded.reused + embedded.failed
    if embedded.failed > settings.embed.max_failed * total:
        raise FailureBudgetError(
            f"{embedded.failed:,} of {pluralize(total, 'image')}",
            f"failed, more than the share of {settings.embed.max_failed} that embed.max_failed allows",
            "See `frostline sql 'from failures'`, fix them, or raise --embed.max-failed",
        )


def _count_failed(settings: RunSettings, wanted: FeatureRequest) -> int:
    with read_lake(settings.resolved_home) as lake:
        return count_failed(lake, wanted.recipe_id, wanted.source)

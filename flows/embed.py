"""The embed flow: what has no feature yet gets one."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from prefect import flow

from flows.orchestrator.run_log import forward_logs
from flows.progress import show_progress
from flows.reports.throughput import Throughput, measure
from flows.settings import RunSettings
from storage.errors import FailureBudgetError, NumbersChangedError
from storage.lake.attach import read_lake
from storage.recipe import Recipe
from storage.sources.open_image import folder_source
from storage.tables.features import count_failed
from storage.tables.missing import FIRST_ID, FeatureRequest
from storage.vectors.feature_file import Shard
from tasks.embed.claim import hold_leases
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.embed.step import (
    check_canaries,
    claim_shard,
    commit_features,
    count_images,
    drop_lost,
    record_recipe,
    renew_recipe,
    resolve_recipe,
    run_shard,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """What an embed run did to features, those of the views among them; the throughput leaves canaries out."""

    recipe_id: str
    computed: int
    reused: int
    failed: int
    throughput: Throughput


@dataclass(frozen=True)
class _Part:
    """What was done under one recipe; ``present`` features are there now, ``added`` among them."""

    recipe_id: str
    added: int
    present: int
    failed: int
    shards: list[Shard]


@flow(flow_run_name="embed {settings.source}", persist_result=False)
def embed(settings: RunSettings) -> Embedded:
    """Compute the features that are missing under the recipes that the settings mean: the images', then each view's."""
    with forward_logs():
        parts = [_embed_view(settings, view) for view in range(settings.embed.views + 1)]
    shards = [shard for part in parts for shard in part.shards]
    added, present, failed = (sum(getattr(part, name) for part in parts) for name in ("added", "present", "failed"))
    done = Embedded(parts[0].recipe_id, added, present - added, failed, measure(shards))
    _check_budget(settings, done)
    return done


def _embed_view(settings: RunSettings, view: int) -> _Part:
    """Compute what is missing under one recipe, shard by shard."""
    resolved = resolve_recipe(settings.resolved_home, settings.embed, view)
    wanted = FeatureRequest(resolved.recipe.recipe_id, settings.source_name, settings.retry, datetime.now(UTC))
    drop_lost(settings.resolved_home, wanted.recipe_id)
    counts = count_images(settings.resolved_home, wanted)
    packed = (settings.resolved_home.backbones / resolved.recipe.recipe_id).exists()  # another home may share the lake
    if counts.missing or resolved.new or not packed:
        record_recipe(settings.resolved_home, resolved)
    shards, added = list[Shard](), 0
    if counts.missing:
        recipe, compiled = _prove(settings, resolved, counts.missing)
        wanted = replace(wanted, recipe_id=recipe.recipe_id)
        shards, added = _run(settings, wanted, counts.missing, compiled=compiled)
        counts = count_images(settings.resolved_home, wanted)
    return _Part(wanted.recipe_id, added, counts.present, _count_failed(settings, wanted), shards)


def _prove(settings: RunSettings, resolved: ResolvedRecipe, missing: int) -> tuple[Recipe, bool]:
    """Prove that this machine computes the recipe's numbers, or go on with its next edition where the user says so."""
    home, source = settings.resolved_home, settings.source_name
    try:
        return resolved.recipe, check_canaries(home, source, resolved.recipe.recipe_id, missing, settings.embed)
    except NumbersChangedError:
        if not settings.new_recipe:
            raise
    renewed = renew_recipe(home, resolved)
    record_recipe(home, renewed)
    return _prove(settings, renewed, missing)


def _run(settings: RunSettings, wanted: FeatureRequest, missing: int, *, compiled: bool) -> tuple[list[Shard], int]:
    home, decided = settings.resolved_home, settings.embed.model_copy(update={"compile": "on" if compiled else "off"})
    source = folder_source(settings.source_name, settings.source_path)
    shards, added, after = list[Shard](), 0, FIRST_ID
    with show_progress("embed", missing) as advance, hold_leases(home) as holder:
        while lease := claim_shard(home, wanted, len(shards) + 1, settings.embed.shard, holder, after):
            shard = run_shard(home, wanted, source, len(shards) + 1, lease, decided, advance)
            added += commit_features(home, len(shards) + 1, lease, shard)
            shards.append(shard)
            logger.info("shard %d: %d images · %s", len(shards), len(lease.items), measure([shard]))
            after, _ = lease.items[-1]
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


def _count_failed(settings: RunSettings, wanted: FeatureRequest) -> int:
    with read_lake(settings.resolved_home) as lake:
        return count_failed(lake, wanted.recipe_id, wanted.source)

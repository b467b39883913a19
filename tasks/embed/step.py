"""The embed step's tasks."""

import logging
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from storage.care.lost_features import drop_files
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.plural import pluralize
from storage.sources.open_image import Source
from storage.tables import missing, recipes
from storage.tables.features import commit_shard
from storage.tables.leases import Lease
from storage.tables.lost_files import find_lost
from storage.tables.missing import Counts, FeatureRequest
from storage.vectors.feature_file import Shard
from tasks.embed.checks.check_canaries import verify_canaries
from tasks.embed.claim import SHARD_SECONDS, claim, make_renewer
from tasks.embed.find_recipe import ResolvedRecipe, resolve_all
from tasks.embed.pipeline import embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import count_cores
from tasks.encoder.pack import pack_backbone
from tasks.encoder.repack import repack
from tasks.encoder.runtimes.exported import Runtime, open_embedder
from tasks.step_task import step_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardJob:
    """Everything that a worker needs to embed a shard, as plain values that can be sent to another machine."""

    home: Home
    recipe_id: str
    source: Source
    number: int
    lease: Lease
    settings: EmbedSettings
    runtime: Runtime = "torch"


@step_task("resolve {settings.backbone}")
def resolve_recipes(home: Home, settings: EmbedSettings) -> tuple[ResolvedRecipe, ...]:
    """Find or decide the recipes of the images and of their views, in order; writes nothing to the lake."""
    return resolve_all(home, settings)


@step_task("reopen recipe {recipe_id}")
def reopen_recipe(home: Home, recipe_id: str) -> ResolvedRecipe:
    """Open a recipe of the lake again by its id, whatever settings once led to it.

    Raises:
        WeightsError: if its weights are not on this machine any more.
    """
    with read_lake(home) as lake:
        recipe = recipes.get_recipe(lake, recipe_id)
    return ResolvedRecipe(recipe, {}, repack(home, recipe), new=False)


@step_task("record recipe")
def record_recipe(home: Home, resolved: ResolvedRecipe) -> ResolvedRecipe:
    """Record a recipe and copy its backbone into the home; return what the lake now has for its settings."""
    with open_lake(home) as lake:
        recipe = recipes.save_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    pack_backbone(recipe, resolved.weights, home.backbones / recipe.recipe_id)
    return replace(resolved, recipe=recipe)


@step_task("renew recipe")
def renew_recipe(home: Home, resolved: ResolvedRecipe) -> ResolvedRecipe:
    """Replace a recipe by its next edition, whose features are computed from scratch."""
    with open_lake(home) as lake:
        renewed = recipes.renew_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    return replace(resolved, recipe=renewed, new=True)


@step_task("drop lost features")
def drop_lost(home: Home, recipe_id: str) -> int:
    """Drop features whose files are lost, so that they count as missing; return their number."""
    with read_lake(home) as lake:
        lost = find_lost(lake, recipe_id)
    if lost:
        rows, files = pluralize(sum(file.rows for file in lost), "feature"), pluralize(len(lost), "file")
        logger.warning("lost %s in %s: computing them again", rows, files)
        with open_lake(home) as lake:
            drop_files(lake, [file.path for file in lost])
    return sum(file.rows - file.deleted for file in lost)


@step_task("count images of {wanted.source}")
def count_images(home: Home, wanted: FeatureRequest) -> Counts:
    """Count a source's images with and without a feature of a recipe."""
    with read_lake(home) as lake:
        return missing.count_images(lake, wanted)


@step_task("check canaries of {source}")
def check_canaries(home: Home, source: SourceName, recipe_id: str, images: int, settings: EmbedSettings) -> Runtime:
    """Fail if this machine computes other vectors than the recipe's; return the runtime to use."""
    return verify_canaries(home, source, recipe_id, images, settings)


@step_task("claim shard {number}")
def claim_shard(
    home: Home,
    wanted: FeatureRequest,
    number: int,  # noqa: ARG001 - names the task run
    size: int | None,
    holder: str,
    after: str,
) -> Lease | None:
    """Lease the next missing images, so that no other run embeds them; None if nothing is missing any more."""
    return claim(home, wanted, size, holder, after)


@step_task("embed shard {job.number}")
def run_shard(job: ShardJob) -> Shard:
    """Embed one shard and write its Parquet file, not yet part of the lake; renew its lease in the meantime."""
    settings = job.settings
    embedder = open_embedder(job.home, job.recipe_id, settings.batch, settings.device, job.runtime)
    renew = make_renewer(job.home, job.lease.holder)
    readers = settings.decoders or count_cores()
    limit = math.inf if settings.shard else SHARD_SECONDS
    return embed_shard(job.home, job.source, embedder, job.lease.items, readers, renew, settings.budget, limit)


@step_task("commit shard {job.number}")
def commit_features(job: ShardJob, shard: Shard) -> int:
    """Commit one shard, which ends its lease; return the number of features added."""
    with open_lake(job.home) as lake:
        return commit_shard(lake, shard, datetime.now(UTC), job.lease.holder)

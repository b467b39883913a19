"""The embed step's tasks."""

import logging
from dataclasses import replace
from datetime import UTC, datetime

from storage.care.lost_features import drop_files, find_lost
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.progress import Advance
from storage.sources.open_image import Source
from storage.tables import missing, recipes
from storage.tables.features import commit_shard
from storage.tables.leases import Lease
from storage.tables.missing import Counts, FeatureRequest
from storage.vectors.feature_file import Shard
from tasks.embed.check_canaries import verify_canaries
from tasks.embed.claim import claim, keep_alive
from tasks.embed.find_recipe import ResolvedRecipe, resolve
from tasks.embed.pipeline import embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import count_cores
from tasks.encoder.pack import open_packed, pack_backbone
from tasks.step_task import step_task

logger = logging.getLogger(__name__)


@step_task("resolve {settings.backbone}")
def resolve_recipe(home: Home, settings: EmbedSettings, view: int = 0) -> ResolvedRecipe:
    """Find or decide the recipe that the settings mean for a view; writes nothing to the lake."""
    return resolve(home, settings, view)


@step_task("keep recipe")
def record_recipe(home: Home, resolved: ResolvedRecipe) -> None:
    """Record the recipe and keep its backbone in the home."""
    with open_lake(home) as lake:
        recipes.save_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    pack_backbone(resolved.recipe, resolved.weights, home.backbones / resolved.recipe.recipe_id)


@step_task("renew recipe")
def renew_recipe(home: Home, resolved: ResolvedRecipe) -> ResolvedRecipe:
    """Put the next edition of a recipe in its place."""
    with open_lake(home) as lake:
        renewed = recipes.renew_recipe(lake, resolved.request, resolved.recipe, datetime.now(UTC))
    return replace(resolved, recipe=renewed, new=True)


@step_task("drop lost features")
def drop_lost(home: Home, recipe_id: str) -> int:
    """Drop features whose files are gone from the catalog, so that they are missing; gives how many there were."""
    with read_lake(home) as lake:
        lost = find_lost(lake, recipe_id)
    if lost:
        logger.warning("%d features are lost with %d files: computing them again", sum(f.rows for f in lost), len(lost))
        with open_lake(home) as lake:
            drop_files(lake, [file.path for file in lost])
    return sum(file.rows - file.deleted for file in lost)


@step_task("count images of {wanted.source}")
def count_images(home: Home, wanted: FeatureRequest) -> Counts:
    """Count the images of a source by whether they have a feature under a recipe."""
    with read_lake(home) as lake:
        return missing.count_images(lake, wanted)


@step_task("check canaries of {source}")
def check_canaries(home: Home, source: SourceName, recipe_id: str, images: int, settings: EmbedSettings) -> bool:
    """Refuse where this machine computes other vectors than the recipe's; tells whether compiling repays."""
    return verify_canaries(home, source, recipe_id, images, settings)


@step_task("claim shard {number}")
def claim_shard(
    home: Home,
    wanted: FeatureRequest,
    number: int,  # noqa: ARG001 - names the task run
    shard: int | None,
    holder: str,
    after: str,
) -> Lease | None:
    """Lease the next images that are missing, so that no other run embeds them; None where there are none."""
    return claim(home, wanted, shard, holder, after)


@step_task("embed shard {number}")
def run_shard(
    home: Home,
    wanted: FeatureRequest,
    source: Source,
    number: int,  # noqa: ARG001 - names the task run
    lease: Lease,
    settings: EmbedSettings,
    advance: Advance,
) -> Shard:
    """Embed one shard and write its Parquet file, not yet part of the lake."""
    embedder = open_packed(
        home.backbones / wanted.recipe_id, settings.batch, settings.device, compiled=settings.compile == "on"
    )
    renewing = keep_alive(home, lease.holder, advance)
    return embed_shard(home, source, embedder, lease.items, settings.decoders or count_cores(), renewing)


@step_task("commit shard {number}")
def commit_features(home: Home, number: int, lease: Lease, shard: Shard) -> int:  # noqa: ARG001 - names the task run
    """Commit one shard, which ends its lease; gives how many features it added."""
    with open_lake(home) as lake:
        return commit_shard(lake, shard, datetime.now(UTC), lease.holder)

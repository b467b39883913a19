"""Scoring: embed the images that the champion lacks under its own recipe, so that it predicts every image."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.embed import RecipeResult, embed_recipe
from flows.orchestrator.run_log import forward_logs
from flows.settings import RunSettings
from storage.errors import EmbedError, NoSpaceError, SettingsError
from storage.lake.attach import read_lake
from storage.locations.path_text import decode_path
from storage.plural import pluralize
from storage.tables.label_sets import find_root
from tasks.embed.step import reopen_recipe
from tasks.register.champion import ChampionGap
from tasks.register.step import predict_images

NOT_EMBEDDED = (
    "they are not embedded under its --embed settings, which differ from this run's. "
    "Set --registry.champion-predicts all to embed them"
)
REMEDY = "Fix this, make another version champion, or accept it with --registry.champion-predicts embedded"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """What the champion needed in order to predict the remaining images: counts of features and images.

    Attributes:
        version: The champion.
        recipe_id: The recipe of its images.
        images: How often an image or a view went through its backbone.
        added: How many features are new.
        failed: How many features could not be computed; the lake's ``failures`` say why.
        predicted: How many images it could predict then.
        warnings: Why it could not predict some, in one line; empty if it has predicted every image.
    """

    version: int
    recipe_id: str
    images: int
    added: int
    failed: int
    predicted: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object under ``champion`` in what ``frostline run --json`` prints."""
        counts = {"computed": self.added, "failed": self.failed, "predicted": self.predicted}
        return {"version": self.version, "recipe": self.recipe_id, **counts}


def score(settings: RunSettings, gap: ChampionGap) -> Scored:
    """Embed what the champion needs, if the settings allow it, then let it predict these images.

    A backbone that cannot be opened here costs these predictions and a warning, not the run.
    """
    results, reason, predicted = list[RecipeResult](), NOT_EMBEDDED, 0
    rest: ChampionGap | None = gap
    with forward_logs():
        if settings.registry.champion_predicts == "all":
            reason = _embed(settings, gap, results)
            predicted, rest = predict_images(settings.resolved_home, gap.version)
        warnings = (_describe_rest(rest, reason),) if rest else ()
        for warning in warnings:
            logger.warning("%s", warning)
    return Scored(
        gap.version.version,
        gap.recipe_ids[0],
        sum(shard.calls for result in results for shard in result.shards),
        sum(result.added for result in results),
        sum(len(shard.failures) for result in results for shard in result.shards),
        predicted,
        warnings,
    )


def _embed(settings: RunSettings, gap: ChampionGap, results: list[RecipeResult]) -> str:
    """Embed each source under each recipe and add the results to ``results``; returns why some images are left."""
    reason = "the folder of their source is not on this machine"
    try:
        for recipe_id in gap.recipe_ids:
            resolved = reopen_recipe(settings.resolved_home, recipe_id)
            results.extend(embed_recipe(each, resolved) for each in _list_settings(settings, gap))
    except (EmbedError, SettingsError, NoSpaceError) as error:
        reason = f"{error.value}: {error.rule}"
    return f"{reason}. {REMEDY}"


def _list_settings(settings: RunSettings, gap: ChampionGap) -> list[RunSettings]:
    """Return the run's settings for each of the champion's sources whose folder is on this machine."""
    found = []
    for source in gap.sources:
        with read_lake(settings.resolved_home) as lake:
            root = find_root(lake, [source])
        if root and Path(decode_path(root)).is_dir():
            folder = Path(decode_path(root))
            update = {"source": folder, "name": source, "new_recipe": False}  # a new recipe would not be the champion's
            found.append(settings.model_copy(update=update))
    return found


def _describe_rest(rest: ChampionGap, reason: str) -> str:
    images = pluralize(rest.images, "image")
    return f"{images} cannot be predicted by the champion, version {rest.version.version}: {reason}"

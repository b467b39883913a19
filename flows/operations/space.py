"""Whether there is room for what a run would write, compared before it writes anything."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings import RunSettings
from storage.errors import NoSpaceError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.recipe import Recipe
from storage.tables.missing import FeatureRequest, explain_missing
from storage.tables.scans import Scan
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.encoder.backbone.weights import Weights

FIXED_BYTES = 24_000_000
"""What the first run writes apart from features and weights: the catalog, MLflow's database and Prefect's, the head."""
COPIES_OF_WEIGHTS = 2
"""The home holds the backbone once for embedding and once in the registered model."""
COMPRESSED = 0.6
"""Parquet files of features are about two thirds of their numbers' size: an estimate must not refuse what fits."""
BYTES_PER_NUMBER = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Room:
    """The bytes that a run would write below the home, at least, and those that are free there."""

    folder: Path
    needed: int
    free: int

    def to_json(self) -> dict[str, Any]:
        """Return the object under ``disk`` in what ``frostline plan --json`` prints."""
        return {"needed": self.needed, "free": self.free}

    def check(self) -> None:
        """Refuse a run that would fill the disk.

        Raises:
            NoSpaceError: if more is needed than is free.
        """
        if self.needed > self.free:
            raise NoSpaceError(
                f"home {self.folder}",
                f"needs at least {format_bytes(self.needed)} and has {format_bytes(self.free)} free",
                "Free some space there, or choose another disk with --home",
            )


def measure_room(home: Home, images: int, recipe: Recipe | None, weights: Weights | None) -> Room:
    """Compare what the features of some images take, at least, with what is free.

    Args:
        home: The home of the lake.
        images: How many images and views would be embedded; without any, next to nothing is written.
        recipe: The recipe, if it is known.
        weights: The backbone's weights, if they are here; they are copied if the home does not have them yet.
    """
    if not images:
        return Room(home.root, 0, _measure_free(home.root))
    features = 0 if home.data_url or not recipe else images * recipe.dim * BYTES_PER_NUMBER[recipe.stored]
    packed = recipe is not None and (home.backbones / recipe.recipe_id).exists()
    copies = 0 if packed or not weights else COPIES_OF_WEIGHTS * weights.path.stat().st_size
    fixed = 0 if packed else FIXED_BYTES
    return Room(home.root, int(COMPRESSED * features) + copies + fixed, _measure_free(home.root))


def check_room(settings: RunSettings, recipes: Sequence[ResolvedRecipe], scanned: Scan | None = None) -> None:
    """Refuse to embed what is missing, now or once a scan is committed, if that would fill the disk.

    Raises:
        NoSpaceError: if more is needed than is free.
    """
    home = settings.resolved_home
    with read_lake(home) as lake:
        requests = [FeatureRequest(each.recipe.recipe_id, settings.source_name, settings.retry) for each in recipes]
        images = sum(part.images for request in requests for part in explain_missing(lake, request, scanned))
    measure_room(home, images, recipes[0].recipe, recipes[0].weights).check()


def format_bytes(count: int) -> str:
    """Format a number of bytes in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004 - a gigabyte


def _measure_free(folder: Path) -> int:
    """Measure what is free on the disk of a folder, or of the one in which it will be created."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

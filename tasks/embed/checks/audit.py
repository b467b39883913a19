"""Auditing: compare a sample of the lake's vectors with what their packed backbones compute now."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from storage.care.row_checks import Finding
from storage.errors import ImageError
from storage.lake.lake import Lake
from storage.sources.copies import read_image
from storage.tables.features import add_rows, read_features
from storage.tables.leases import announce_rewriting
from storage.tables.recipes import get_recipe
from storage.vectors.feature_file import Matrix, measure_distances, write_features
from tasks.embed.checks.canaries import get_tolerance
from tasks.encoder.embedder import embed_images
from tasks.encoder.pack import open_packed
from tasks.encoder.pixels.budget import PROVEN

SAMPLE = 16
"""The number of images per recipe that are embedded again."""
CANDIDATES = 4 * SAMPLE
"""The number of images to draw, since the files of some may be gone."""


def check_vectors(lake: Lake, seed: int, now: datetime) -> Iterator[Finding]:
    """Embed a sample of each recipe's images again; yield vectors that differ by more than the canaries' tolerance."""
    for (recipe_id,) in lake.rows("SELECT recipe_id FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        images = draw_images(lake, recipe_id, seed) if folder.is_dir() else {}
        if images:
            yield from _compare(lake, recipe_id, folder, images, now)


def draw_images(lake: Lake, recipe_id: str, seed: int) -> dict[str, bytes]:
    """Draw images that have a feature and whose files still exist; return their bytes by their ids."""
    candidates = lake.rows(
        """SELECT image_id::VARCHAR AS id FROM features WHERE recipe_id = ? AND image_id IN (SELECT image_id FROM files)
           ORDER BY md5(concat(image_id, ?::INTEGER)) LIMIT ?""",
        [recipe_id, seed, CANDIDATES],
    )
    images: dict[str, bytes] = {}
    for (image_id,) in candidates:
        if len(images) == SAMPLE:
            break
        with contextlib.suppress(ImageError):
            images[image_id] = read_image(lake, image_id)
    return images


def _compare(lake: Lake, recipe_id: str, folder: Path, images: dict[str, bytes], now: datetime) -> Iterator[Finding]:
    tolerance = get_tolerance(get_recipe(lake, recipe_id))
    current = embed_images(open_packed(folder, None, "auto", compiled=False), list(images.values()), budget=PROVEN)
    stored = read_features(lake, recipe_id, list(images))
    distances = measure_distances(stored, current)
    for row, image_id in enumerate(images):
        if not distances[row] <= tolerance:  # also true for NaN
            yield Finding(
                "vector",
                f"feature of image {image_id}, recipe {recipe_id}: differs from what the backbone computes by "
                f"{distances[row]:.2g} of its length; {tolerance:.2g} is allowed",
                "replace it with what the backbone computes",
                partial(_replace, lake, recipe_id, image_id, current[row : row + 1], now),
            )


def _replace(lake: Lake, recipe_id: str, image_id: str, vector: Matrix, now: datetime) -> None:
    sql = "DELETE FROM features WHERE recipe_id = ? AND image_id = ?::UUID"
    with announce_rewriting(lake, now):
        file = write_features(lake.home, recipe_id, [image_id], vector)
        add_rows(lake, recipe_id, file, now, lambda: lake.execute(sql, [recipe_id, image_id]))

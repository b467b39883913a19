"""Auditing: a sample of the lake's vectors against what their packed backbones give now."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from storage.care.row_checks import Finding
from storage.errors import ImageError
from storage.lake.lake import Lake
from storage.sources.copies import read_image
from storage.tables.features import add_missing, read_features
from storage.tables.recipes import get_recipe
from storage.vectors.feature_file import Matrix, measure_distances, write_features
from tasks.embed.canaries import tolerate
from tasks.encoder.embedder import embed_images
from tasks.encoder.pack import open_packed

SAMPLE = 16
"""Images of each recipe that are embedded again."""
DRAWN = 4 * SAMPLE
"""So many are drawn, as the files of some may be gone."""


def check_vectors(lake: Lake, seed: int, now: datetime) -> Iterator[Finding]:
    """Embed a sample of each recipe's images again and compare, within the canaries' tolerance."""
    for (recipe_id,) in lake.rows("SELECT recipe_id FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        images = draw_images(lake, recipe_id, seed) if folder.is_dir() else {}
        if images:
            yield from _compare(lake, recipe_id, folder, images, now)


def draw_images(lake: Lake, recipe_id: str, seed: int) -> dict[str, bytes]:
    """Draw images that have a feature and whose files are still there: their bytes by their ids."""
    drawn = lake.rows(
        """SELECT image_id::VARCHAR AS id FROM features WHERE recipe_id = ? AND image_id IN (SELECT image_id FROM files)
           ORDER BY md5(concat(image_id, ?::INTEGER)) LIMIT ?""",
        [recipe_id, seed, DRAWN],
    )
    images: dict[str, bytes] = {}
    for (image_id,) in drawn:
        if len(images) == SAMPLE:
            break
        with contextlib.suppress(ImageError):
            images[image_id] = read_image(lake, image_id)
    return images


def _compare(lake: Lake, recipe_id: str, folder: Path, images: dict[str, bytes], moment: datetime) -> Iterator[Finding]:
    allowed = tolerate(get_recipe(lake, recipe_id))
    now = embed_images(open_packed(folder, None, "auto", compiled=False), list(images.values()))
    stored = read_features(lake, recipe_id, list(images))
    far = measure_distances(stored, now)
    for row, image_id in enumerate(images):
        if not far[row] <= allowed:  # NaN is beyond it, too
            yield Finding(
                "vector",
                f"features of image {image_id}, recipe {recipe_id}: lies {far[row]:.2g} of its length from what the "
                f"backbone gives, {allowed:.2g} is allowed",
                "what the backbone gives takes its place",
                partial(_replace, lake, recipe_id, image_id, now[row : row + 1], moment),
            )


def _replace(lake: Lake, recipe_id: str, image_id: str, vector: Matrix, now: datetime) -> None:
    file = write_features(lake.home, recipe_id, [image_id], vector)

    def write() -> None:
        lake.execute("DELETE FROM features WHERE recipe_id = ? AND image_id = ?::UUID", [recipe_id, image_id])
        add_missing(lake, recipe_id, file, now)

    lake.commit(write)

"""Verifying: packed weights against their recipes, and stored vectors against what the backbone gives now."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from storage.canaries import find_canaries
from storage.features import read_features
from storage.findings import Finding
from storage.lake import Lake
from storage.recipes import get_recipe
from tasks.embed.canaries import tolerate
from tasks.embed.engine import embed_images
from tasks.embed.pack import keep_open
from tasks.embed.settings import EmbedSettings
from tasks.embed.watch import read_image
from tasks.embed.weights import digest_file

SAMPLE = 8
"""Images of each recipe that are embedded again."""


def check_weights(lake: Lake) -> Iterator[Finding]:
    """Check that packed backbones have the weights that their recipes name."""
    for recipe_id, weights in lake.rows("SELECT recipe_id, weights FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        for path in folder.glob("weights*"):
            if digest_file(path) != weights:
                yield Finding(
                    "other weights",
                    str(path),
                    "are not the recipe's",
                    "removed; the next run that embeds packs them again",
                    partial(_unpack, recipe_id=recipe_id),
                )


def check_vectors(lake: Lake, settings: EmbedSettings) -> Iterator[Finding]:
    """Embed a sample of each recipe's images again and compare, within the canaries' tolerance."""
    for (recipe_id,) in lake.rows("SELECT recipe_id FROM recipes ORDER BY ALL"):
        folder = lake.home.backbones / recipe_id
        if folder.exists():
            yield from _check_sample(lake, recipe_id, folder, settings)


def _check_sample(lake: Lake, recipe_id: str, folder: Path, settings: EmbedSettings) -> Iterator[Finding]:
    sql = "SELECT image_id::VARCHAR FROM features WHERE recipe_id = ? ORDER BY hash(image_id) LIMIT ?"
    drawn = [(image, read_image(lake, image)) for (image,) in lake.rows(sql, [recipe_id, SAMPLE])]
    at_hand = [(image, data) for image, data in drawn if data is not None]
    if not at_hand:
        return
    known = find_canaries(lake, recipe_id)
    tolerance = known.tolerance if known else tolerate(get_recipe(lake, recipe_id))
    embedder = keep_open(folder, settings.batch, settings.device, compiled=False)
    now = embed_images(embedder, [data for _, data in at_hand])
    stored = read_features(lake, recipe_id, [image for image, _ in at_hand])
    far = np.linalg.norm(now - stored, axis=1) / np.maximum(np.linalg.norm(now, axis=1), 1e-12)
    for (image, _), distance in zip(at_hand, far, strict=True):
        if not distance <= tolerance:
            yield Finding(
                "other vector",
                f"feature of image {image} under recipe {recipe_id}",
                f"lies {distance:.2g} of its length from what the backbone gives, {tolerance:.2g} is allowed",
                "the row is removed, and the next run computes it again",
                partial(_remove, recipe_id=recipe_id, image_id=image),
            )


def _unpack(lake: Lake, recipe_id: str) -> None:
    shutil.rmtree(lake.home.backbones / recipe_id)


def _remove(lake: Lake, recipe_id: str, image_id: str) -> None:
    sql = "DELETE FROM features WHERE recipe_id = ? AND image_id = ?::UUID"
    lake.commit(lambda: lake.execute(sql, [recipe_id, image_id]))

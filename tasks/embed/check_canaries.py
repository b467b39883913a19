"""Checking the canaries: before a run writes features, it verifies that this machine still computes the same."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from storage.errors import ImageError, NumbersChangedError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.recipe import Recipe
from storage.sources.copies import read_image
from storage.tables.canaries import Canaries, Probe, find_canaries, find_first_images, save_canaries
from tasks.embed.canaries import compare, make_canaries, make_probes, measure_pace
from tasks.embed.find_recipe import is_compiling_worthwhile
from tasks.embed.settings import EmbedSettings
from tasks.encoder.pack import open_packed
from tasks.encoder.pixels.budget import Budget
from tasks.encoder.pixels.decode import decode

FIRST_IMAGES = 4

logger = logging.getLogger(__name__)


def verify_canaries(home: Home, source: SourceName, recipe_id: str, images: int, settings: EmbedSettings) -> bool:
    """Compare a recipe's canaries with what this machine computes; make them if there are none.

    Args:
        home: The lake's home.
        source: The source whose images become probes if there are no canaries.
        recipe_id: The recipe.
        images: The number of images that the run will embed.
        settings: The settings of embedding.

    Returns:
        Whether to compile the backbone: if that pays off for this many images, yields the same numbers, and turns out
        to be faster, which is not the case for every network.

    Raises:
        NumbersChangedError: if a vector differs by more than the tolerance.
    """
    folder = home.backbones / recipe_id
    embedder = open_packed(folder, settings.batch, settings.device, compiled=False)
    with read_lake(home) as lake:
        canaries = find_canaries(lake, recipe_id)
        chosen = _choose_probes(lake, source, embedder.recipe, settings.budget)
        probes = list(_read_probes(lake, canaries) if canaries else chosen)
    if canaries:
        compare(embedder, canaries, probes)
    else:
        canaries = make_canaries(embedder, probes)
        with open_lake(home) as lake:
            save_canaries(lake, recipe_id, canaries, datetime.now(UTC))
    if not is_compiling_worthwhile(settings, images, canaries.images_per_second):
        return False
    uncompiled_pace = measure_pace(embedder)
    compiled = open_packed(folder, settings.batch, settings.device, compiled=True)
    try:
        compare(compiled, canaries, probes)
    except NumbersChangedError as error:
        logger.warning("continuing without compiling: %s", error)
        return False
    return settings.compile == "on" or measure_pace(compiled) > uncompiled_pace


def _choose_probes(lake: Lake, source: SourceName, recipe: Recipe, budget: Budget) -> Iterator[tuple[Probe, bytes]]:
    """Yield the drawn probes, then the first of the source's images that can be decoded."""
    yield from make_probes()
    for image_id in find_first_images(lake, source, FIRST_IMAGES):
        try:
            data = read_image(lake, image_id)
            decode(data, recipe.transform, budget=budget)
        except Exception:  # noqa: BLE001, S112 - decoders may raise anything; the run records the failure
            continue
        yield Probe(image_id, None), data


def _read_probes(lake: Lake, canaries: Canaries) -> Iterator[tuple[Probe, bytes]]:
    """Yield the probes with their bytes, except images of the lake whose files are gone or changed."""
    for probe in canaries.probes:
        try:
            data = probe.image or read_image(lake, probe.name)
        except ImageError:
            continue
        yield probe, data

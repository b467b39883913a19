"""Watching the canaries: before a run writes features, it proves that this machine still computes them."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from storage.errors import ImageError, NumbersChangedError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.recipe import Transform
from storage.sources.copies import read_image
from storage.tables.canaries import Canaries, Probe, find_canaries, find_first_images, save_canaries
from tasks.embed.canaries import compare, make_canaries, make_probes, measure_pace
from tasks.embed.find_recipe import repays_compiling
from tasks.embed.settings import EmbedSettings
from tasks.encoder.pack import open_packed
from tasks.encoder.pixels.decode import decode

FIRST_IMAGES = 4

logger = logging.getLogger(__name__)


def verify_canaries(home: Home, source: SourceName, recipe_id: str, images: int, settings: EmbedSettings) -> bool:
    """Compare a recipe's canaries with what this machine computes, making them where there are none.

    Returns:
        Whether to go on with the backbone compiled: where that repays for so many images, gives the same numbers, and
        turns out to be faster, which it is not for every network.

    Raises:
        NumbersChangedError: where a vector lies beyond the tolerance.
    """
    folder = home.backbones / recipe_id
    embedder = open_packed(folder, settings.batch, settings.device, compiled=False)
    with read_lake(home) as lake:
        known = find_canaries(lake, recipe_id)
        probes = list(_read(lake, known) if known else _choose(lake, source, embedder.recipe.transform))
    if known:
        compare(embedder, known, probes)
    else:
        known = make_canaries(embedder, probes)
        with open_lake(home) as lake:
            save_canaries(lake, recipe_id, known, datetime.now(UTC))
    if not repays_compiling(settings, images, known.images_per_second):
        return False
    plain = measure_pace(embedder)
    compiled = open_packed(folder, settings.batch, settings.device, compiled=True)
    try:
        compare(compiled, known, probes)
    except NumbersChangedError as error:
        logger.warning("going on without compiling: %s", error)
        return False
    return settings.compile == "on" or measure_pace(compiled) > plain


def _choose(lake: Lake, source: SourceName, transform: Transform) -> Iterator[tuple[Probe, bytes]]:
    yield from make_probes()
    for image_id in find_first_images(lake, source, FIRST_IMAGES):
        try:
            data = read_image(lake, image_id)
            decode(data, transform)
        except Exception:  # noqa: BLE001, S112 - decoders raise anything; the run records the failure
            continue
        yield Probe(image_id, None), data


def _read(lake: Lake, known: Canaries) -> Iterator[tuple[Probe, bytes]]:
    """Read the probes; those of the lake's images whose files are gone or changed are left out."""
    for probe in known.probes:
        try:
            data = probe.image or read_image(lake, probe.name)
        except ImageError:
            continue
        yield probe, data

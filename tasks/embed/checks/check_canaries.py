"""Checking the canaries: before a run writes features, it verifies that this machine still computes the same."""

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from storage.errors import ImageError, NumbersChangedError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.recipe import Recipe
from storage.sources.copies import read_image
from storage.tables.canaries import Canaries, Probe, find_canaries, find_first_images, save_canaries
from tasks.embed.checks.canaries import compare, make_canaries, make_probes, measure_pace
from tasks.embed.checks.choose_runtime import choose_runtime
from tasks.embed.find_recipe import is_compiling_worthwhile
from tasks.embed.settings import EmbedSettings
from tasks.encoder.embedder import Embedder
from tasks.encoder.pixels.budget import Budget
from tasks.encoder.pixels.decode import decode
from tasks.encoder.runtimes.exported import Runtime, find_choice, open_embedder

FIRST_IMAGES = 4

logger = logging.getLogger(__name__)


def verify_canaries(home: Home, source: SourceName, recipe_id: str, images: int, settings: EmbedSettings) -> Runtime:
    """Compare a recipe's canaries with what this machine computes; make them if there are none.

    Where another runtime than torch was chosen before, torch is not even imported.

    Args:
        home: The lake's home.
        source: The source whose images become probes if there are no canaries.
        recipe_id: The recipe.
        images: The number of images that the run will embed.
        settings: The settings of embedding.

    Returns:
        The fastest runtime that yields the same numbers. Torch is compiled if that pays off for this many images, and
        turns out to be faster, which is not the case for every network.

    Raises:
        NumbersChangedError: if a vector differs by more than the tolerance.
        SettingsError: if the settings name a runtime that cannot run this backbone here.
    """
    may_export = settings.runtime != "torch" and settings.compile != "on"
    choice = find_choice(home, recipe_id, settings.device) if may_export else None
    with read_lake(home) as lake:
        canaries = find_canaries(lake, recipe_id)
        probes = list(_read_probes(lake, canaries)) if canaries else []
    if canaries and choice and settings.runtime in ("auto", choice.runtime) and choice.runtime != "torch":
        runtime = _try_chosen(home, recipe_id, settings, choice.runtime, canaries, probes)
        if runtime:
            return runtime
        choice = None
    embedder, pace = open_embedder(home, recipe_id, settings.batch, settings.device), None
    if canaries:
        compare(embedder, canaries, probes)
    else:
        with read_lake(home) as lake:
            probes = list(_choose_probes(lake, source, embedder.recipe, settings.budget))
        canaries = make_canaries(embedder, probes)
        with open_lake(home) as lake:
            save_canaries(lake, recipe_id, canaries, datetime.now(UTC))
        pace = canaries.images_per_second
    named = settings.runtime not in ("auto", "torch")
    if may_export and (choice is None or named) and (named or embedder.lanes.export):
        runtime = choose_runtime(home, embedder, canaries, probes, settings, pace)
        if runtime != "torch":
            return runtime
    if not is_compiling_worthwhile(settings, images, canaries.images_per_second):
        return "torch"
    return _try_compiled(home, embedder, canaries, probes, settings)


def _try_chosen(
    home: Home,
    recipe_id: str,
    settings: EmbedSettings,
    runtime: Runtime,
    canaries: Canaries,
    probes: Sequence[tuple[Probe, bytes]],
) -> Runtime | None:
    """Compare the runtime that was chosen before; None if it yields other numbers now, and torch must be asked."""
    embedder = open_embedder(home, recipe_id, settings.batch, settings.device, runtime)
    try:
        compare(embedder, canaries, probes)
    except NumbersChangedError as error:
        logger.warning("continuing in torch: %s", error)
        return None
    return runtime


def _try_compiled(
    home: Home,
    embedder: Embedder,
    canaries: Canaries,
    probes: Sequence[tuple[Probe, bytes]],
    settings: EmbedSettings,
) -> Runtime:
    """Compile; return torch-compiled if the numbers are the same and, unless it is asked for, faster."""
    uncompiled_pace = measure_pace(embedder)
    recipe_id = embedder.recipe.recipe_id
    compiled = open_embedder(home, recipe_id, settings.batch, settings.device, "torch-compiled")
    try:
        compare(compiled, canaries, probes)
    except NumbersChangedError as error:
        logger.warning("continuing without compiling: %s", error)
        return "torch"
    return "torch-compiled" if settings.compile == "on" or measure_pace(compiled) > uncompiled_pace else "torch"


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

"""Choosing a runtime: the fastest that computes a recipe's canaries, tried once on each machine."""

import logging
from collections.abc import Sequence

from storage.errors import SettingsError
from storage.locations.home import Home
from storage.tables.canaries import Canaries, Probe
from tasks.embed.checks.canaries import compare, measure_pace
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import digest_file
from tasks.encoder.embedder import Embedder
from tasks.encoder.runtimes.exported import (
    Runtime,
    RuntimeChoice,
    find_choice,
    is_exported,
    list_runtimes,
    model_path,
    open_embedder,
    save_choice,
)

REMEDY = "Use --embed.runtime auto, which falls back to torch"

logger = logging.getLogger(__name__)


def choose_runtime(
    home: Home,
    embedder: Embedder,
    canaries: Canaries,
    probes: Sequence[tuple[Probe, bytes]],
    settings: EmbedSettings,
    pace: float | None = None,
) -> Runtime:
    """Export a backbone, compare each installed runtime with its canaries, and record the fastest that passes.

    Args:
        home: The home of the packed backbone.
        embedder: The backbone in torch.
        canaries: Its recipe's canaries.
        probes: Their images.
        settings: The settings of embedding; a runtime that they name is the only one that is tried.
        pace: Images per second in torch, if that has just been measured.

    Raises:
        SettingsError: if the settings name a runtime that cannot run this backbone here.
    """
    recipe_id, named = embedder.recipe.recipe_id, settings.runtime != "auto"
    tried = list_runtimes() if settings.runtime == "auto" else [_check_installed(settings.runtime)]
    reason = _export(home, embedder, settings.device) if tried else "nothing else is installed"
    paces: dict[Runtime, float] = {} if named else {"torch": pace or measure_pace(embedder)}
    for runtime in tried if reason is None else ():
        try:
            other = open_embedder(home, recipe_id, settings.batch, settings.device, runtime)
            compare(other, canaries, probes)
        except Exception as error:  # noqa: BLE001 - a runtime raises anything for a network that it cannot run
            reason = f"{runtime}: {' '.join(str(error).split())}"
        else:
            paces[runtime] = measure_pace(other)
    if reason and not (named and paces):
        if named:
            raise SettingsError(f"embed.runtime {settings.runtime}", f"cannot run this backbone: {reason}", REMEDY)
        logger.info("recipe %s stays in torch: %s", recipe_id[:12], reason)
    fastest = max(paces, key=lambda runtime: paces[runtime])
    if not named:
        model = model_path(home, recipe_id)
        weights = embedder.recipe.weights
        digest = digest_file(model) if model.exists() else None
        save_choice(home, recipe_id, RuntimeChoice(fastest, paces, weights, digest, reason))
    return fastest


def _check_installed(runtime: Runtime) -> Runtime:
    if runtime not in list_runtimes():
        raise SettingsError(f"embed.runtime {runtime}", "is not installed", f"Install {runtime}, or use auto")
    return runtime


def _export(home: Home, embedder: Embedder, device: str) -> str | None:
    """Write the ONNX file, unless it is there undamaged; return why that is not possible, None if it is."""
    recipe_id = embedder.recipe.recipe_id
    path, choice = model_path(home, recipe_id), find_choice(home, recipe_id, device)
    if choice and is_exported(home, recipe_id, choice):
        return None
    if embedder.lanes.export is None:
        return "only float32 on a CPU is exported"
    try:
        embedder.lanes.export(path)
    except Exception as error:  # noqa: BLE001 - the exporter raises anything for what it does not know
        return f"it cannot be exported: {' '.join(str(error).split())[:200]}"
    return None

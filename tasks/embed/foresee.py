"""Decide the recipe that a run would use, in a process of its own: deciding takes torch, and a plan loads none."""

import os
import pickle
from typing import cast

from storage.child_process import ChildProcess, receive
from storage.errors import BackboneError, FrostlineError
from storage.recipe import Recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights

DEFAULTS = EmbedSettings()
FIELDS = ("backbone", "weights", "cut", "pooling", "resize", "crop", "interpolation", "decoder", "dtype", "device")
"""The settings that a new recipe can be refused for."""


def needs_look(settings: EmbedSettings, recipe: Recipe | None) -> bool:
    """Return whether the settings may be refused: they differ from the defaults, and no run has used them before.

    A device other than the CPU has to be looked for each time.
    """
    if settings.device not in ("auto", "cpu"):
        return True
    return recipe is None and any(getattr(settings, name) != getattr(DEFAULTS, name) for name in FIELDS)


def foresee_recipe(settings: EmbedSettings, weights: Weights | None) -> Recipe | None:
    """Decide the recipe as a run would; None if its weights have to be downloaded first.

    Raises:
        BackboneError, WeightsError, SettingsError: as the run would.
    """
    process = ChildProcess(serve, answers=True)
    try:
        process.send((settings, weights))
        answer = process.take()
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise BackboneError(
            f"backbone {settings.backbone}", "cannot be looked at: its process ended", "Run with --debug to see why"
        ) from error
    finally:
        process.end()
    if isinstance(answer, FrostlineError):
        raise answer
    return cast("Recipe | None", answer)


def serve() -> None:
    """Decide one recipe, and answer with it or with the error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    settings, weights = cast("tuple[EmbedSettings, Weights | None]", receive())
    try:
        answer: object = try_recipe(settings, weights)
    except FrostlineError as error:
        answer = error
    pickle.dump(answer, answers)
    answers.close()


def try_recipe(settings: EmbedSettings, weights: Weights | None) -> Recipe | None:
    """Do in this process what :func:`foresee_recipe` does in another."""
    from tasks.embed.decide_recipe import decide_recipe
    from tasks.encoder.backbone.forward import check_cut
    from tasks.encoder.backbone.networks import build_meta_network, find_input
    from tasks.encoder.backbone.open_backbone import find_device

    find_device(settings.device)
    if weights:
        return decide_recipe(settings, weights)
    size = find_input(settings.backbone, settings.weights).size
    check_cut(build_meta_network(settings.backbone, size), settings.cut)
    return None

"""Backbones: a frozen network, cut where freezing ends, from pixels to vectors."""

import torch

from storage.errors import SettingsError, WeightsError
from storage.recipe import Dtype, Recipe
from tasks.encoder.allocator import keep_freed_memory
from tasks.encoder.backbone.cpu import BATCH, open_cpu
from tasks.encoder.backbone.forward import make_forward
from tasks.encoder.backbone.networks import load_network
from tasks.encoder.backbone.rounding import round_weights
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.embedder import Backbone, Lanes


def open_backbone(
    recipe: Recipe, weights: Weights, device: str, batch: int | None = None, *, compiled: bool = False
) -> tuple[Backbone, Lanes]:
    """Load a recipe's network, frozen, onto a device, with the lanes that keep the device busy.

    ``compiled`` takes tens of seconds once, and saves them again over many thousand images.

    Raises:
        WeightsError: where the weights are not the recipe's.
    """
    if weights.digest != recipe.weights:
        raise WeightsError(
            f"weights {weights.path}",
            f"are not those of recipe {recipe.recipe_id}",
            "Run again, for a recipe of their own",
        )
    keep_freed_memory()
    place = torch.device(find_device(device))
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    network = load_network(recipe.architecture, weights)
    if recipe.dtype != "float32":
        with torch.inference_mode():
            round_weights(network, getattr(torch, recipe.dtype), torch.zeros(1, 3, *recipe.transform.crop))
    network = network.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = make_forward(network, recipe, place)
    if place.type == "cuda":
        from tasks.encoder.backbone.cuda import open_cuda

        return open_cuda(forward, recipe, place, compiled=compiled)
    return open_cpu(forward, recipe, batch or BATCH, compiled=compiled)


def find_device(device: str) -> str:
    """Resolve ``auto``: the first GPU where there is one.

    Raises:
        SettingsError: where a GPU is asked for that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise SettingsError(f"embed.device {device}", "needs a GPU and none is visible", "Take --embed.device cpu")
    return device


def fast_dtype(device: str) -> Dtype:
    """Take bfloat16 where the hardware multiplies it faster than float32."""
    if find_device(device) != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"  # noqa: SLF001 - no public name

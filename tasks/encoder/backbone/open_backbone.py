"""Opening a backbone: a frozen network up to its cut, as a function from pixels to vectors."""

from dataclasses import replace
from functools import partial

import torch

from storage.errors import SettingsError, WeightsError
from storage.recipe import Dtype, Recipe
from tasks.encoder.allocator import retain_freed_memory
from tasks.encoder.backbone.cpu import BATCH, open_cpu
from tasks.encoder.backbone.forward import make_forward
from tasks.encoder.backbone.networks import load_network
from tasks.encoder.backbone.rounding import round_weights
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.embedder import Backbone, Lanes
from tasks.encoder.runtimes.export import export_onnx


def open_backbone(
    recipe: Recipe, weights: Weights, device: str, batch: int | None = None, *, compiled: bool = False
) -> tuple[Backbone, Lanes]:
    """Load a recipe's frozen network onto a device; return it with the lanes that keep the device busy.

    Args:
        recipe: The recipe.
        weights: Its weights.
        device: auto, cpu, cuda or cuda:0.
        batch: Images per batch on a CPU; by default 8.
        compiled: Compile the network first, which takes tens of seconds and repays over many thousand images.

    Raises:
        BackboneError: if the recipe's network or cut does not exist.
        SettingsError: if the device is a GPU that is not visible.
        WeightsError: if the weights are not the recipe's.
    """
    if weights.digest != recipe.weights:
        raise WeightsError(
            f"weights {weights.path}",
            f"are not those of recipe {recipe.recipe_id}",
            "Run again to make a new recipe for them",
        )
    retain_freed_memory()
    target = torch.device(find_device(device))
    if target.type == "cuda" and target.index is None:
        target = torch.device("cuda", torch.cuda.current_device())
    network = load_network(recipe.architecture, weights)
    if recipe.dtype != "float32":
        with torch.inference_mode():
            round_weights(network, getattr(torch, recipe.dtype), torch.zeros(1, 3, *recipe.transform.crop))
    network = network.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = make_forward(network, recipe, target)
    if target.type == "cuda":
        from tasks.encoder.backbone.cuda import open_cuda

        return open_cuda(forward, recipe, target, compiled=compiled)
    backbone, lanes = open_cpu(forward, recipe, batch or BATCH, compiled=compiled)
    if recipe.dtype == "float32":
        lanes = replace(lanes, export=partial(export_onnx, network, forward, recipe, lanes.batch))
    return backbone, lanes


def find_device(device: str) -> str:
    """Resolve ``auto`` to the GPU if there is one, else to the CPU.

    Raises:
        SettingsError: if a GPU is requested and none is visible.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise SettingsError(f"embed.device {device}", "needs a GPU and none is visible", "Use --embed.device cpu")
    return device


def fast_dtype(device: str) -> Dtype:
    """Return bfloat16 if the hardware multiplies it faster than float32, else float32."""
    if find_device(device) != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"  # noqa: SLF001 - no public name

"""Backbones: a frozen network, cut where freezing ends, from pixels to vectors."""

import difflib
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from storage.errors import BackboneError, SettingsError, WeightsError
from storage.recipe import Dtype, Recipe
from storage.vectors import Matrix
from tasks.embed.engine import Backbone
from tasks.embed.networks import find_classifier, load_network
from tasks.embed.weights import Weights


class _ReachedError(Exception):
    """Ends a forward pass at the cut, so that the layers behind it cost nothing."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def open_backbone(recipe: Recipe, weights: Weights, device: str) -> Backbone:
    """Load a recipe's network, frozen, onto a device.

    Raises:
        WeightsError: where the weights are not the recipe's.
    """
    if weights.digest != recipe.weights:
        raise WeightsError(
            f"weights {weights.path}",
            f"are not those of recipe {recipe.recipe_id}",
            "Run again, for a recipe of their own",
        )
    place = torch.device(find_device(device))
    network = load_network(recipe.architecture, weights)
    network = network.to(device=place, dtype=getattr(torch, recipe.dtype), memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.tensor(recipe.transform.mean, device=place).view(1, 3, 1, 1)
    std = torch.tensor(recipe.transform.std, device=place).view(1, 3, 1, 1)

    @torch.inference_mode()
    def embed(pixels: npt.NDArray[np.uint8]) -> Matrix:
        batch = torch.from_numpy(pixels).to(place).permute(0, 3, 1, 2)  # a view: NHWC memory is channels_last
        batch = ((batch.float() / 255 - mean) / std).to(getattr(torch, recipe.dtype))
        vectors = pool(run_to_cut(network, recipe.cut, batch), recipe.pooling)
        return cast("Matrix", vectors.flatten(1).float().cpu().numpy())

    return embed


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


def run_to_cut(network: nn.Module, cut: str, batch: Tensor) -> Tensor:
    """Run the layers before the cut: its input where it is the classifier, its output anywhere else."""

    def stop_before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _ReachedError(inputs[0])

    def stop_after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        raise _ReachedError(output)

    layer = _find_cut(network, cut)
    hook = layer.register_forward_pre_hook(stop_before) if cut == "avgpool" else layer.register_forward_hook(stop_after)
    try:
        network(batch)
    except _ReachedError as reached:
        return reached.value
    finally:
        hook.remove()
    raise BackboneError(f"cut {cut}", "is a layer that the network does not run", "Choose another layer")


def _find_cut(network: nn.Module, cut: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(network.named_modules())
    name = find_classifier(network)[0] if cut == "avgpool" else cut
    if name and name in layers:
        return layers[name]
    if cut == "avgpool":
        raise BackboneError(
            "cut avgpool", "needs a network that ends in a linear layer", "Name a layer with --embed.cut"
        )
    near = difflib.get_close_matches(cut, [layer for layer in layers if layer], n=3)
    raise BackboneError(
        f"cut {cut!r}", "is no layer of the network", f"Take avgpool, {', '.join(near or list(layers)[1:4])}"
    )


def pool(value: Tensor, pooling: str) -> Tensor:
    """Average over places or tokens, unless the pooling keeps them.

    Args:
        value: [n, c], [n, tokens, c], [n, c, h, h] or, as some transformers have it, [n, h, h, c].
        pooling: average or flatten.
    """
    if pooling == "flatten" or value.ndim == 2:  # noqa: PLR2004 - [n, c] has nothing left to pool
        return value
    if value.ndim == 3:  # noqa: PLR2004 - tokens
        return value.mean(dim=1)
    _, first, second, last = value.shape
    return value.mean(dim=(1, 2) if first == second != last else (2, 3))

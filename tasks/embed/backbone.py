"""Backbones: a frozen network, cut where freezing ends, from pixels to vectors."""

import difflib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.utils.hooks import RemovableHandle

from storage.errors import BackboneError, SettingsError, WeightsError
from storage.recipe import Dtype, Recipe
from storage.vectors import Matrix
from tasks.embed.allocator import keep_freed_memory
from tasks.embed.engine import Backbone, Lanes
from tasks.embed.networks import find_classifier, load_network
from tasks.embed.rounding import round_weights
from tasks.embed.weights import Weights

MOST_LANES = 8
BATCH = 8  # a lane: its layers then fit into a core's cache

Forward = Callable[[Tensor], Tensor]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32, on one device."""


class _ReachedError(Exception):
    """Ends a forward pass at the cut, so that the layers behind it cost nothing."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


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
        from tasks.embed.cuda import open_cuda

        return open_cuda(forward, recipe, place, compiled=compiled)
    return open_cpu(forward, recipe, batch or BATCH, compiled=compiled)


def make_forward(network: nn.Module, recipe: Recipe, place: torch.device) -> Forward:
    """Make the function from pixels [n, height, width, 3], uint8, to vectors [n, dim], float32, all on one device."""
    dtype = getattr(torch, recipe.dtype)
    width = recipe.transform.crop[1]
    mean, std = torch.tensor(recipe.transform.mean, device=place), torch.tensor(recipe.transform.std, device=place)
    scale, shift = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)  # along a row: one long axis is fast
    with torch.inference_mode():
        run = cut_off(network, recipe.cut, torch.zeros(1, 3, *recipe.transform.crop, device=place, dtype=dtype))

    def forward(pixels: Tensor) -> Tensor:
        rows = pixels.flatten(2).float()
        batch = torch.addcmul(shift, rows, scale).to(dtype).view(pixels.shape)
        value = run(batch.permute(0, 3, 1, 2))  # a view: NHWC memory is channels_last
        return pool(value, recipe.pooling).flatten(1).float()

    return forward


def open_cpu(forward: Forward, recipe: Recipe, batch: int, *, compiled: bool) -> tuple[Backbone, Lanes]:
    """Run a lane on each core, up to eight, rather than one batch on all: nothing waits for the slowest thread."""
    cores = torch.get_num_threads()
    count = min(cores, MOST_LANES)

    def enter() -> None:
        torch.set_num_threads(cores // count)  # of this thread alone, as OpenMP counts them

    @torch.inference_mode()
    def embed(pixels: npt.NDArray[np.uint8]) -> Matrix:
        try:
            return cast("Matrix", run(torch.from_numpy(pixels)).numpy())
        except RuntimeError as error:
            if "not enough memory" in str(error):
                raise MemoryError(str(error)) from error
            raise

    run = compile_forward(forward, recipe, batch, enter) if compiled else forward
    return embed, Lanes(count, enter, f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}", batch)


def compile_forward(forward: Forward, recipe: Recipe, batch: int, enter: Callable[[], None]) -> Forward:
    """Compile for one batch size, weights folded in, in a thread like those that will run it."""
    run = cast("Forward", torch.compile(forward, dynamic=False))

    @torch.inference_mode()
    def warm_up() -> None:
        with inductor.patch(freezing=True):
            run(torch.zeros(batch, *recipe.transform.crop, 3, dtype=torch.uint8))

    with ThreadPoolExecutor(1, initializer=enter) as thread:
        thread.submit(warm_up).result()
    return run


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


def cut_off(network: nn.Module, cut: str, probe: Tensor) -> Callable[[Tensor], Tensor]:
    """Give the layers before the cut as a function: to its input where it is the classifier, to its output elsewhere.

    A network that gives what its classifier was given, once that is taken out, runs through, and a compiler sees it
    whole; in others the pass is broken off at the cut.

    Args:
        network: Is changed: its classifier goes, or a hook comes.
        cut: input, avgpool, or a layer's name.
        probe: A batch that the network takes.

    Raises:
        BackboneError: where there is no such layer, or it is not run.
    """
    if cut == "input":
        return nn.Identity()
    layer = _find_cut(network, cut)
    hook = _break_off(layer, before=cut == "avgpool")
    at_cut = _run_to_hook(network, cut, probe)
    if cut == "avgpool":
        name = find_classifier(network)[0]
        network.set_submodule(name, nn.Identity())
        through = network(probe)
        if isinstance(through, Tensor) and torch.equal(through, at_cut):
            hook.remove()
            return network
        network.set_submodule(name, layer)
    return partial(_run_to_hook, network, cut)


def _break_off(layer: nn.Module, *, before: bool) -> RemovableHandle:
    def stop_before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _ReachedError(inputs[0])

    def stop_after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        raise _ReachedError(output)

    return layer.register_forward_pre_hook(stop_before) if before else layer.register_forward_hook(stop_after)


def _run_to_hook(network: nn.Module, cut: str, batch: Tensor) -> Tensor:
    try:
        network(batch)
    except _ReachedError as reached:
        return reached.value
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

"""The forward pass of a frozen network up to its cut, as one function."""

import difflib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from storage.errors import BackboneError
from storage.recipe import Recipe
from tasks.encoder.backbone.networks import find_classifier

Forward = Callable[[Tensor], Tensor]
"""From pixels [n, height, width, 3], uint8, to vectors [n, dim], float32, on one device."""


class _CutReachedError(Exception):
    """Ends a forward pass at the cut, so that the layers after it cost nothing."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def make_forward(network: nn.Module, recipe: Recipe, device: torch.device) -> Forward:
    """Make the function from pixels [n, height, width, 3], uint8, to vectors [n, dim], float32, all on one device."""
    dtype = getattr(torch, recipe.dtype)
    width = recipe.transform.crop[1]
    mean, std = torch.tensor(recipe.transform.mean, device=device), torch.tensor(recipe.transform.std, device=device)
    # repeated along a row, since one long axis is fast
    scale, shift = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)
    with torch.inference_mode():
        run = cut_off(network, recipe.cut, torch.zeros(1, 3, *recipe.transform.crop, device=device, dtype=dtype))

    def forward(pixels: Tensor) -> Tensor:
        rows = pixels.flatten(2).float()
        batch = torch.addcmul(shift, rows, scale).to(dtype).view(pixels.shape)
        value = run(batch.permute(0, 3, 1, 2))  # a view: NHWC memory is channels_last
        return pool(value, recipe.pooling).flatten(1).float()

    return forward


def cut_off(network: nn.Module, cut: str, probe: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function for the network up to the cut: a layer's output, or for ``avgpool`` the classifier's input.

    If the network returns the classifier's input once the classifier is removed, it runs to its end, and a compiler
    sees all of it; otherwise an exception ends each pass at the cut.

    Args:
        network: The network; it is changed: its classifier is removed, or a hook is added.
        cut: ``input``, ``avgpool`` or a layer's name.
        probe: A batch of a size that the network takes.

    Raises:
        BackboneError: if there is no such layer, or the network does not run it.
    """
    if cut == "input":
        return nn.Identity()
    layer = _find_cut(network, cut)
    hook = _stop_at(layer, before=cut == "avgpool")
    at_cut = _run_to_hook(network, cut, probe)
    if cut == "avgpool":
        name = find_classifier(network)[0]
        network.set_submodule(name, nn.Identity())
        output = network(probe)
        if isinstance(output, Tensor) and torch.equal(output, at_cut):
            hook.remove()
            return network
        network.set_submodule(name, layer)
    return partial(_run_to_hook, network, cut)


def check_cut(network: nn.Module, cut: str) -> None:
    """Check that a network has the layer of a cut; its weights do not matter.

    Raises:
        BackboneError: if it does not.
    """
    if cut != "input":
        _find_cut(network, cut)


def _stop_at(layer: nn.Module, *, before: bool) -> RemovableHandle:
    def stop_before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise _CutReachedError(inputs[0])

    def stop_after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        raise _CutReachedError(output)

    return layer.register_forward_pre_hook(stop_before) if before else layer.register_forward_hook(stop_after)


def _run_to_hook(network: nn.Module, cut: str, batch: Tensor) -> Tensor:
    try:
        network(batch)
    except _CutReachedError as reached:
        return reached.value
    raise BackboneError(f"cut {cut}", "is a layer that the network does not run", "Choose another layer")


def _find_cut(network: nn.Module, cut: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(network.named_modules())
    name = find_classifier(network)[0] if cut == "avgpool" else cut
    if name and name in layers:
        return layers[name]
    if cut == "avgpool":
        raise BackboneError(
            "cut avgpool", "needs a network that ends in a linear layer", "Choose a layer with --embed.cut"
        )
    suggestions = difflib.get_close_matches(cut, [layer for layer in layers if layer], n=3) or list(layers)[1:4]
    raise BackboneError(
        f"cut {cut!r}", "is not a layer of the network", f"Choose avgpool or a layer, such as {', '.join(suggestions)}"
    )


def pool(value: Tensor, pooling: str) -> Tensor:
    """Average over positions or tokens, unless the pooling is ``flatten``.

    Args:
        value: [n, c], [n, tokens, c], [n, c, h, h] or, in some transformers, [n, h, h, c].
        pooling: ``average`` or ``flatten``.
    """
    if pooling == "flatten" or value.ndim == 2:  # noqa: PLR2004 - [n, c] has nothing left to pool
        return value
    if value.ndim == 3:  # noqa: PLR2004 - tokens
        return value.mean(dim=1)
    _, first, second, last = value.shape
    return value.mean(dim=(1, 2) if first == second != last else (2, 3))

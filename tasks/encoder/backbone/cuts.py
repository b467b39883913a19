"""Cuts: the tensors up to which a network can be frozen, what each saves, and the network split in two there."""

import difflib
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from storage.artifacts.head_files import Arrays
from storage.errors import BackboneError, WeightsError
from storage.vectors.feature_file import Matrix
from tasks.encoder.backbone.forward import pool
from tasks.encoder.backbone.graph import NetworkGraph, trace_network
from tasks.encoder.backbone.networks import build_meta_network, find_input, load_network
from tasks.encoder.backbone.rounding import Pair, find_pairs
from tasks.encoder.pack import read_packed

PASS_THROUGH = (nn.Identity, nn.modules.dropout._DropoutNd)  # noqa: SLF001 - no public name
RESERVED = ("input", "avgpool")
"""Names of cuts that are not layers."""
TOLERANCE = 1e-5
BATCH = 32


@dataclass(frozen=True)
class Cut:
    """A point at which freezing can end.

    Attributes:
        name: ``input`` (nothing is frozen), a layer (frozen up to its output) or ``avgpool`` (all but the classifier).
        shape: The shape of an image's feature.
        bytes: The uncompressed size of an image's feature in the lake, with all positions or tokens.
        pooled: The same, averaged over positions or tokens.
        flops_saved: The share of the forward pass that is frozen, counting convolutions and matrix products.
        parameters_left: The number of parameters after it, including the network's own classifier.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    pooled: int
    flops_saved: float
    parameters_left: int

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``frostline cuts --json`` prints."""
        return {name: value for name, value in asdict(self).items() if name != "pooled"}

    def to_row(self) -> tuple[str, ...]:
        """Return the row that ``frostline cuts`` prints."""
        shape = "x".join(map(str, self.shape))
        saved = f"{100 * self.flops_saved:.1f} %"
        return (self.name, shape, f"{self.bytes:,}", f"{self.pooled:,}", saved, f"{self.parameters_left:,}")


class TailLayers(NamedTuple):
    """The layers between a cut and the classifier: from features [n, *shape] to its input [n, width], float32.

    The module is in evaluation mode; all its parameters require gradients and keep their names in the network.
    """

    module: nn.Module
    shape: tuple[int, ...]
    width: int

    @torch.inference_mode()
    def run(self, features: Matrix) -> Matrix:
        """Return the classifier's input [n, width] for features [n, dim] as the lake stores them."""
        self.module.eval()
        device = next(self.module.parameters()).device
        starts = range(0, len(features), BATCH)
        batches = (torch.from_numpy(features[at : at + BATCH]).view(-1, *self.shape).to(device) for at in starts)
        parts = [self.module(batch).cpu().numpy() for batch in batches]
        return np.concatenate([np.empty((0, self.width), np.float32), *parts])

    def state(self) -> Arrays:
        """Return a copy of the layers' parameters and buffers, by name."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}


def list_cuts(backbone: str, weights: str = "embedded", crop: int | None = None, stored: str = "float16") -> list[Cut]:
    """List the cuts of a backbone, from its input to its classifier; does not load the weights.

    Args:
        backbone: The network, as ``embed.backbone`` names it.
        weights: The weights, as ``embed.weights`` names them; named weights determine the default crop.
        crop: Side of the network's square input, in pixels; by default the network's own.
        stored: The precision of stored vectors, float16 or float32.

    Raises:
        BackboneError: if there is no such network, or it cannot be traced at the crop.
    """
    size = find_input(backbone, weights).size
    size = (crop, crop) if crop else size
    traced = trace_network(build_meta_network(backbone, size), size)
    width = 4 if stored == "float32" else 2
    return [_describe(traced, name, node, width) for name, node in list_cut_points(traced).items()]


def _describe(traced: NetworkGraph, name: str, node: fx.Node, width: int) -> Cut:
    shape = traced.shapes[node][1:]
    total, left = (sum(traced.flops[part] for part in traced.between(at, traced.end)) for at in (traced.start, node))
    pooled = pool(torch.empty(1, *shape, device="meta"), "average").numel()
    saved = 1 - left / total
    return Cut(name, tuple(shape), width * prod(shape), width * pooled, saved, traced.count_parameters(node))


def list_cut_points(traced: NetworkGraph) -> dict[str, fx.Node]:
    """Return the nodes at which the network is best cut, by name, in order.

    They are outputs of modules that are called once, named after the outermost module with that output. Of several
    with the same parameters after them, the last that is not the output of a dropout or identity is listed; of those
    with the same parameters after them as ``avgpool``, only one with more elements. None is between a convolution and
    its batch norm, since ``round_weights`` scales the two together.
    """
    size, device = traced.shapes[traced.start][1:], next(traced.network.parameters()).device
    pairs = find_pairs(traced.network, torch.zeros(1, *size, device=device))
    last, total = traced.classifier_input, traced.count_parameters(traced.start)
    names = {
        node: path for path, node in traced.names.items() if path not in RESERVED and _can_cut(traced, node, pairs)
    }
    chosen: dict[int, fx.Node] = {}
    for node in filter(names.__contains__, traced.graph.nodes):
        left = traced.count_parameters(node)
        differs = not last or left > traced.count_parameters(last) or _dim(traced, node) > _dim(traced, last)
        if 0 < left < total and differs and not (left in chosen and isinstance(traced.module_of(node), PASS_THROUGH)):
            chosen[left] = node
    layers = {names[node]: node for node in chosen.values()}
    return {"input": traced.start, **layers, **({"avgpool": last} if last else {})}


def _can_cut(traced: NetworkGraph, node: fx.Node, pairs: list[Pair]) -> bool:
    """Return whether a node is a tensor [n, ...] that divides the network and separates no pair."""
    module = traced.module_of(node)
    inside = set(module.modules()) if module else set()
    separates = any(pair.convolution in inside and pair.norm not in inside for pair in pairs)
    return traced.shapes.get(node, ())[:1] == (2,) and not separates and traced.divides(node)


def _dim(traced: NetworkGraph, node: fx.Node) -> int:
    return prod(traced.shapes[node])


def split(network: nn.Module, cut: str, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Split a network at a cut into a frozen front and a tail: ``tail(front(pixels))`` equals ``network(pixels)``.

    The front returns what ``cut_off`` returns. The tail's parameters keep their names in the network, and its layers
    can be put into training mode one by one.

    Args:
        network: A network in evaluation mode, in float32; shares its parameters with both parts.
        cut: A name from ``list_cuts``, or another name of the same output.
        size: Height and width of the network's input, in pixels.

    Raises:
        BackboneError: if the network cannot be traced, or the cut is not a single tensor that divides it.
    """
    traced = trace_network(network, size)
    return _split(traced, find_cut_point(traced, cut))


def _split(traced: NetworkGraph, node: fx.Node) -> tuple[nn.Module, nn.Module]:
    """Split, and verify the two parts on two images of noise."""
    front, tail = traced.extract(traced.start, node), traced.extract(node, traced.end)
    noise = torch.randn(2, 3, *traced.shapes[traced.start][2:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = traced.network(noise)
        error = (tail(front(noise)) - whole).abs().max()
    if not error <= TOLERANCE * whole.abs().max():
        raise BackboneError(
            type(traced.network).__name__,
            f"computes different numbers in two parts than as a whole (by {float(error):.0e})",
            "Choose another backbone to train from a cut",
        )
    return front, tail


def find_cut_point(traced: NetworkGraph, cut: str) -> fx.Node:
    """Find the node of a cut.

    Raises:
        BackboneError: if it is not one of :func:`list_cut_points`.
    """
    points = list_cut_points(traced)
    node = points.get(cut) or traced.names.get(cut)
    if node is None or node not in points.values():
        suggestions = difflib.get_close_matches(cut, points, n=3) or list(points)[-3:]
        raise BackboneError(
            f"cut {cut!r}", "does not divide the network at a single tensor", f"Choose {' or '.join(suggestions)}"
        )
    return node


def open_tail(folder: Path, state: Arrays | None = None) -> TailLayers:
    """Open the layers after a packed backbone's cut, pretrained, to be trained on the lake's features.

    Args:
        folder: The packed backbone.
        state: Replaces the pretrained parameters and buffers; from :meth:`TailLayers.state`.

    Raises:
        WeightsError: if the backbone is missing, or its weights are no longer the recipe's.
        BackboneError: if the network cannot be traced, cut there, or given a new classifier, or if the recipe's
            features are averages.
    """
    if not (folder / "recipe.json").is_file():
        raise WeightsError(f"backbone {folder}", "is not in this home", "Run `frostline run` here to pack it")
    recipe, weights = read_packed(folder)
    if weights.digest != recipe.weights:
        raise WeightsError(
            f"weights {weights.path}", f"are not those of recipe {recipe.recipe_id}", "See `frostline doctor`"
        )
    traced = trace_network(load_network(recipe.architecture, weights), recipe.transform.crop)
    node, last = find_cut_point(traced, recipe.cut), traced.classifier_input
    if last is None:
        raise BackboneError(
            f"backbone {recipe.architecture}",
            "does not end in a single linear layer that a new head could replace",
            "Choose another backbone to train from a cut",
        )
    shape = tuple(traced.shapes[node][1:])
    if shape != recipe.shape:
        raise BackboneError(
            f"features {list(recipe.shape)} of recipe {recipe.recipe_id}",
            f"are averages, but the layers after {recipe.cut} take {list(shape)}",
            "Embed with --embed.pooling flatten",
        )
    _split(traced, node)
    module = traced.extract(node, last).requires_grad_()
    if state:
        module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return TailLayers(module, shape, traced.shapes[last][-1])

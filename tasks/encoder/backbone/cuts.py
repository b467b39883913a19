"""Cuts: where a network can be frozen up to one tensor, what that saves, and the network in two parts."""

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
from tasks.encoder.backbone.networks import expected_input, load_network, sketch_network
from tasks.encoder.backbone.rounding import Pair, find_pairs
from tasks.encoder.pack import read_packed

PASSING = (nn.Identity, nn.modules.dropout._DropoutNd)  # noqa: SLF001 - no public name
WORDS = ("input", "avgpool")
"""Names of cuts that are no layers."""
TOLERANCE = 1e-5
BATCH = 32


@dataclass(frozen=True)
class Cut:
    """A place where freezing can end.

    Attributes:
        name: ``input`` (nothing is frozen), a layer (up to its output), ``avgpool`` (all but the classifier).
        shape: Of an image's feature.
        bytes: Of an image's feature in the lake, uncompressed, with all its places or tokens.
        pooled: The same, averaged over places or tokens.
        flops_saved: The share of the forward pass that is frozen, by convolutions and products of matrices.
        parameters_left: How many parameters lie behind it, with the network's own classifier.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    pooled: int
    flops_saved: float
    parameters_left: int

    def to_json(self) -> dict[str, Any]:
        """Give the object that ``frostline cuts --json`` prints."""
        return {name: value for name, value in asdict(self).items() if name != "pooled"}

    def to_row(self) -> tuple[str, ...]:
        """Give the row that ``frostline cuts`` prints."""
        shape = "x".join(map(str, self.shape))
        saved = f"{100 * self.flops_saved:.1f} %"
        return (self.name, shape, f"{self.bytes:,}", f"{self.pooled:,}", saved, f"{self.parameters_left:,}")


class TailLayers(NamedTuple):
    """What follows a cut, less the classifier: from features [n, *shape] to what that was given, [n, width]; float32.

    In evaluation mode, with gradients for all parameters, which bear the network's names for them.
    """

    module: nn.Module
    shape: tuple[int, ...]
    width: int

    @torch.inference_mode()
    def run(self, features: Matrix) -> Matrix:
        """Give what the classifier was given, [n, width], for features [n, dim] as the lake has them."""
        self.module.eval()
        place = next(self.module.parameters()).device
        starts = range(0, len(features), BATCH)
        batches = (torch.from_numpy(features[at : at + BATCH]).view(-1, *self.shape).to(place) for at in starts)
        parts = [self.module(batch).cpu().numpy() for batch in batches]
        return np.concatenate([np.empty((0, self.width), np.float32), *parts])

    def state(self) -> Arrays:
        """Give a copy of the layers' numbers, by name."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.module.state_dict().items()}


def list_cuts(backbone: str, weights: str = "embedded", crop: int | None = None, stored: str = "float16") -> list[Cut]:
    """List the cuts of a backbone, from input to classifier; needs no weights.

    Args:
        backbone: The network, as ``embed.backbone`` names it.
        weights: As ``embed.weights`` names them: a name decides the default crop.
        crop: Pixels of the square that the network gets; by default its own.
        stored: The precision of stored vectors, float16 or float32.

    Raises:
        BackboneError: where there is no such network, or it cannot be traced at the crop.
    """
    size = expected_input(backbone, weights).size
    size = (crop, crop) if crop else size
    traced = trace_network(sketch_network(backbone, size), size)
    width = 4 if stored == "float32" else 2
    return [_describe(traced, name, node, width) for name, node in list_cut_points(traced).items()]


def _describe(traced: NetworkGraph, name: str, node: fx.Node, width: int) -> Cut:
    shape = traced.shapes[node][1:]
    total, left = (sum(traced.flops[part] for part in traced.between(at, traced.end)) for at in (traced.start, node))
    pooled = pool(torch.empty(1, *shape, device="meta"), "average").numel()
    saved = 1 - left / total
    return Cut(name, tuple(shape), width * prod(shape), width * pooled, saved, traced.count_parameters(node))


def list_cut_points(traced: NetworkGraph) -> dict[str, fx.Node]:
    """Name the tensors at which the network is best cut, in order.

    They are the outputs of modules that are called once, by the outermost module of that output. Of several with the
    same parameters behind them, the last that is no dropout's or identity's counts, and beside ``avgpool`` only what
    has more numbers. None lies between a convolution and its batch norm, which ``round_weights`` scales together.
    """
    size, device = traced.shapes[traced.start][1:], next(traced.network.parameters()).device
    pairs = find_pairs(traced.network, torch.zeros(1, *size, device=device))
    last, total = traced.classifier_input, traced.count_parameters(traced.start)
    names = {node: path for path, node in traced.names.items() if path not in WORDS and _can_cut(traced, node, pairs)}
    kept: dict[int, fx.Node] = {}
    for node in filter(names.__contains__, traced.graph.nodes):
        left = traced.count_parameters(node)
        tells_more = not last or left > traced.count_parameters(last) or _dim(traced, node) > _dim(traced, last)
        if 0 < left < total and tells_more and not (left in kept and isinstance(traced.module_of(node), PASSING)):
            kept[left] = node
    layers = {names[node]: node for node in kept.values()}
    return {"input": traced.start, **layers, **({"avgpool": last} if last else {})}


def _can_cut(traced: NetworkGraph, node: fx.Node, pairs: list[Pair]) -> bool:
    """Tell whether a node is a tensor, one row an image, through which all passes, and no pair lies on both sides."""
    module = traced.module_of(node)
    inside = set(module.modules()) if module else set()
    parted = any(pair.convolution in inside and pair.norm not in inside for pair in pairs)
    return traced.shapes.get(node, ())[:1] == (2,) and not parted and traced.divides(node)


def _dim(traced: NetworkGraph, node: fx.Node) -> int:
    return prod(traced.shapes[node])


def split(network: nn.Module, cut: str, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Split a network at a cut into what is frozen and what is left: ``tail(front(pixels))`` is ``network(pixels)``.

    The front gives what ``cut_off`` gives. The tail has the parameters behind the cut under their names; its layers can
    be put into training mode, one by one.

    Args:
        network: In evaluation mode, in float32; shares its parameters with both parts.
        cut: One that ``list_cuts`` lists, or another name of the same output.
        size: Height and width of the network's input.

    Raises:
        BackboneError: where it cannot be traced, or cannot be cut there at one tensor.
    """
    traced = trace_network(network, size)
    return _split(traced, find_cut_point(traced, cut))


def _split(traced: NetworkGraph, node: fx.Node) -> tuple[nn.Module, nn.Module]:
    """Split, and prove it on two images of noise."""
    front, tail = traced.extract(traced.start, node), traced.extract(node, traced.end)
    noise = torch.randn(2, 3, *traced.shapes[traced.start][2:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = traced.network(noise)
        error = (tail(front(noise)) - whole).abs().max()
    if not error <= TOLERANCE * whole.abs().max():
        raise BackboneError(
            type(traced.network).__name__,
            f"gives other numbers in two parts than whole (by {float(error):.0e})",
            "Choose another backbone to train from a cut",
        )
    return front, tail


def find_cut_point(traced: NetworkGraph, cut: str) -> fx.Node:
    """Find the tensor of a cut.

    Raises:
        BackboneError: where it is none of those that are listed.
    """
    places = list_cut_points(traced)
    node = places.get(cut) or traced.names.get(cut)
    if node is None or node not in places.values():
        near = difflib.get_close_matches(cut, places, n=3) or list(places)[-3:]
        raise BackboneError(f"cut {cut!r}", "is no place where one tensor passes", f"Take {', '.join(near)}")
    return node


def open_tail(folder: Path, state: Arrays | None = None) -> TailLayers:
    """Open what follows a packed backbone's cut, with pretrained weights, to be trained on the lake's features.

    Args:
        folder: The packed backbone.
        state: Numbers to put in the place of the pretrained ones, as :meth:`TailLayers.state` gives them.

    Raises:
        WeightsError: where the backbone is not there, or its weights are not the recipe's any more.
        BackboneError: where the network cannot be traced, cut there, or given a new classifier; or where the recipe's
            features are averages.
    """
    if not (folder / "recipe.json").is_file():
        raise WeightsError(f"backbone {folder}", "is not in this home", "Run `frostline run` here, which packs it")
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
            "ends in no single linear layer that a new head could replace",
            "Choose another backbone to train from a cut",
        )
    shape = tuple(traced.shapes[node][1:])
    if shape != recipe.shape:
        raise BackboneError(
            f"features {list(recipe.shape)} of recipe {recipe.recipe_id}",
            f"are averages, and what follows {recipe.cut} takes {list(shape)}",
            "Embed with --embed.pooling flatten",
        )
    _split(traced, node)
    module = traced.extract(node, last).requires_grad_()
    if state:
        module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return TailLayers(module, shape, traced.shapes[last][-1])

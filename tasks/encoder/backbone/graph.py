"""A network as a graph: its blocks, the operations between them, and the tensors that everything passes through."""

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from storage.errors import BackboneError
from tasks.encoder.backbone.networks import find_classifier

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001 - no public name
UNTRACEABLE = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)
"""What tracing raises if the forward pass depends on tensor values, which a graph does not have."""


@dataclass(frozen=True)
class NetworkGraph:
    """A network's forward pass in evaluation mode.

    ``calls`` lists the called modules by path, each with the node of its output, inner modules before outer ones.
    """

    network: nn.Module
    graph: fx.Graph
    calls: tuple[tuple[str, fx.Node], ...]
    shapes: dict[fx.Node, torch.Size] = field(default_factory=dict)
    """The shapes of tensors, for a batch of two images."""
    sizes: dict[fx.Node, Any] = field(default_factory=dict)
    """The values that are not tensors, with ... in place of the number of images."""
    flops: dict[fx.Node, int] = field(default_factory=dict)
    """The cost of convolutions and matrix products for one image; a multiply-add counts as two. Complete only on the
    meta device, where torch fuses nothing."""

    @cached_property
    def start(self) -> fx.Node:
        """The input: the pixels."""
        return cast("fx.Node", next(node for node in self.graph.nodes if node.op == "placeholder"))

    @cached_property
    def end(self) -> fx.Node:
        """The output."""
        return cast("fx.Node", next(node for node in self.graph.nodes if node.op == "output").args[0])

    @cached_property
    def names(self) -> dict[str, fx.Node]:
        """The output nodes of the modules that are called exactly once, by path."""
        counts = Counter(path for path, _ in self.calls)
        return {path: node for path, node in self.calls if counts[path] == 1}

    @cached_property
    def classifier_input(self) -> fx.Node | None:
        """The input of the last linear layer; None if not everything passes through it."""
        path = find_classifier(self.network)[0]
        calls = [node for node in self.graph.nodes if node.op == "call_module" and node.target == path]
        return calls[0].args[0] if len(calls) == 1 and self.divides(calls[0].args[0]) else None

    def between(self, start: fx.Node, end: fx.Node) -> list[fx.Node]:
        """List the nodes that ``end`` is computed from, in order, up to and including itself, from ``start`` on."""
        needed, pending = {start, end}, [end]
        while pending:
            node = pending.pop()
            if node is not start and node not in self.sizes:
                pending += [source for source in node.all_input_nodes if source not in needed]
                needed.update(node.all_input_nodes)
        return [node for node in self.graph.nodes if node in needed and node is not start]

    def divides(self, node: fx.Node) -> bool:
        """Return whether the network's output depends on its input only through this node."""
        return node is self.start or self.start not in self.between(node, self.end)

    def module_of(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, if any."""
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def count_parameters(self, start: fx.Node) -> int:
        """Count the parameters after a node."""
        tensors: set[Tensor] = set()
        for node in self.between(start, self.end):
            if module := self.module_of(node):
                tensors.update(module.parameters())
            elif node.op == "get_attr":
                owner, _, name = str(node.target).rpartition(".")
                tensors.add(getattr(self.network.get_submodule(owner), name))
        return sum(tensor.numel() for tensor in tensors if isinstance(tensor, nn.Parameter))

    def extract(self, start: fx.Node, end: fx.Node) -> fx.GraphModule:
        """Make a module that computes ``end`` from ``start``; it shares the network's parameters and their names."""
        graph = fx.Graph()
        value = graph.placeholder("value")
        images = graph.call_method("size", (value, 0))
        copies: dict[fx.Node, Any] = {start: graph.call_method("clone", (value,))}  # layers may compute in place
        for node in self.between(start, end):
            if node in self.sizes:
                copies[node] = _substitute(self.sizes[node], images)
            else:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[end])
        return fx.GraphModule(self.network, graph)


def trace_network(network: nn.Module, size: tuple[int, int]) -> NetworkGraph:
    """Trace a network in evaluation mode with torch.fx down to its blocks, and measure it at an image size.

    Blocks remain modules, so that extracted parts can be trained. The operations between blocks stay as they are in
    evaluation mode.

    Args:
        network: The network.
        size: (height, width) of its input, in pixels.

    Raises:
        BackboneError: if the forward pass depends on the values of its input, or the network does not take the size.
    """
    tracer = _Tracer(_find_containers(network).__contains__)
    try:
        traced = NetworkGraph(network, tracer.trace(network, _defaults(network)), tuple(tracer.calls))
        _measure(traced, size)
    except UNTRACEABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{type(network).__name__} of {size[0]} x {size[1]} pixels",
            f"cannot be traced into a graph ({reason})",
            "Choose another backbone or crop",
        ) from error
    return traced


class _Tracer(fx.Tracer):
    """Traces into some modules, and records the output node of each."""

    def __init__(self, traces_into: Callable[[nn.Module], bool]) -> None:
        super().__init__(param_shapes_constant=True)
        self.traces_into = traces_into
        self.calls: list[tuple[str, fx.Node]] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx's signature
        return not self.traces_into(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - fx's signature
        value = super().call_module(m, forward, args, kwargs)
        if isinstance(value, fx.Proxy):
            self.calls.append((self.path_of_module(m), value.node))
        return value


def _find_containers(network: nn.Module) -> set[nn.Module]:
    """Choose the modules to trace into: those that contain the classifier, sequences of layers, and stages of blocks.

    A block has a convolution or linear layer as a direct child, or it branches, or another of its class does.
    """
    stages = [module for module in network.modules() if _is_sequence(module) or _contains_blocks(module)]
    blocks = {type(module) for module in stages if not _is_sequence(module) and _branches(module)}
    path = find_classifier(network)[0].split(".")[:-1]
    ancestors = {network.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)}
    return ancestors | {module for module in stages if type(module) not in blocks}


def _is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward and _count_weighted(module) > 1


def _contains_blocks(module: nn.Module) -> bool:
    return _count_weighted(module) > 1 and not any(isinstance(child, WEIGHTED) for child in module.children())


def _count_weighted(module: nn.Module | None) -> int:
    return sum(isinstance(part, WEIGHTED) for part in module.modules()) if module else 0


def _branches(module: nn.Module) -> bool:
    """Return whether a layer is in a branch beside the path from input to output; True if it cannot be traced."""
    tracer = _Tracer(lambda _: False)
    try:
        traced = NetworkGraph(module, tracer.trace(module, _defaults(module)), tuple(tracer.calls))
    except UNTRACEABLE:
        return True
    layers = [node for _, node in traced.calls if _count_weighted(traced.module_of(node))]
    return not isinstance(traced.end, fx.Node) or not all(map(traced.divides, layers))


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Return the defaults of all arguments of a forward pass after the first."""
    _, *rest = inspect.signature(module.forward).parameters.values()
    return {parameter.name: parameter.default for parameter in rest if parameter.default is not parameter.empty}


class _Meter(fx.Interpreter):
    """Runs a graph and records each node's result (a tensor's shape, or another value) and its cost."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.counter = FlopCounterMode(display=False)
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.others: dict[fx.Node, Any] = {}
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.flops[n] = self.counter.get_total_flops() - before
        if isinstance(value, Tensor):
            self.shapes[n] = value.shape
        else:
            self.others[n] = value
        return value

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, named = super().fetch_args_kwargs_from_env(n)
        return tuple(list(arg) if isinstance(arg, list) else arg for arg in args), named  # some blocks change them

    @torch.no_grad()
    def measure(self, images: int, size: tuple[int, int]) -> None:
        device = next(iter(self.module.parameters())).device
        with self.counter:
            self.run(torch.zeros(images, 3, *size, device=device))


def _measure(traced: NetworkGraph, size: tuple[int, int]) -> None:
    """Run the graph for one image, then for two, to see which values depend on their number."""
    one, two = _Meter(traced.network, traced.graph), _Meter(traced.network, traced.graph)
    one.measure(1, size)
    two.measure(2, size)
    traced.shapes.update(two.shapes)
    traced.flops.update(one.flops)
    traced.sizes.update(_generalize_all(one.others, two.others))


def _generalize_all(one: dict[fx.Node, Any], two: dict[fx.Node, Any]) -> Iterator[tuple[fx.Node, Any]]:
    """Yield the values that are constant or the number of images, from those for one image and for two."""
    for node, value in one.items():
        with contextlib.suppress(TypeError):
            yield node, _generalize(value, two[node])


def _generalize(one: Any, two: Any) -> Any:  # noqa: ANN401 - numbers, or tuples of them
    if isinstance(one, tuple):
        return tuple(map(_generalize, one, two))
    if not isinstance(one, int | float | torch.dtype) or (one != two and (one, two) != (1, 2)):
        raise TypeError
    return one if one == two else ...


def _substitute(size: Any, images: fx.Node) -> Any:  # noqa: ANN401 - as above
    """Replace ... by the number of images."""
    if isinstance(size, tuple):
        return tuple(_substitute(part, images) for part in size)
    return images if size is ... else size

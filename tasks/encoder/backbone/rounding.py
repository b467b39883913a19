"""Rounding a network's weights to 16 bits so that its vectors change as little as possible."""

from collections import Counter
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

SCALES = 64


@dataclass(frozen=True)
class Pair:
    """A convolution whose output goes into a batch norm."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def round_weights(network: nn.Module, dtype: torch.dtype, probe: Tensor) -> nn.Module:
    """Cast a network to 16 bits in place, except for batch norms, which divide by small variances.

    The scale of a filter before a batch norm is arbitrary: among 64 scales from 1 to 2, each filter gets the one at
    which rounding changes its response least, and the norm undoes the scale. The response to a patch of mean and
    deviation 1 changes by (sum of errors)^2 + sum of errors^2 (the bias and the noise of Nagel et al., Data-Free
    Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2).

    Args:
        network: A frozen network in evaluation mode, in float32.
        dtype: torch.bfloat16 or torch.float16.
        probe: A float32 batch of a size that the network takes.
    """
    for pair in find_pairs(network, probe):
        scale = _choose_scales(pair.convolution.weight.flatten(1), dtype)
        pair.convolution.weight.mul_(scale.view(-1, 1, 1, 1))
        if pair.convolution.bias is not None:
            pair.convolution.bias.mul_(scale)
        cast("Tensor", pair.norm.running_mean).mul_(scale)
        pair.norm.weight.div_(scale)
    for module in network.modules():
        if not isinstance(module, nn.BatchNorm2d):
            _cast_direct(module, dtype)
    return network


@torch.no_grad()
def find_pairs(network: nn.Module, probe: Tensor) -> list[Pair]:
    """Run a network once on a probe batch, and find the batch norms that take a convolution's output unchanged."""
    producers: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept alive, so that no other tensor gets the same id
    pairs: list[Pair] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            producers[id(output)] = module
            outputs.append(output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in producers and _is_affine(module):
            pairs.append(Pair(producers[id(inputs[0])], module))

    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [module.register_forward_hook(record) for module in modules]
    network(probe)
    for hook in hooks:
        hook.remove()
    uses = Counter(module for pair in pairs for module in (pair.convolution, pair.norm))
    return [pair for pair in pairs if uses[pair.convolution] == uses[pair.norm] == 1]


def _is_affine(norm: nn.BatchNorm2d) -> bool:
    return norm.weight is not None and norm.running_mean is not None


def _choose_scales(filters: Tensor, dtype: torch.dtype) -> Tensor:
    """Choose a scale [n] for each filter [n, taps]."""
    scales = 2 ** (torch.arange(SCALES, device=filters.device) / SCALES)
    costs = torch.stack([_cost(filters, scale, dtype) for scale in scales])
    return scales[costs.argmin(dim=0)]


def _cost(filters: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    error = (filters * scale).to(dtype).float() / scale - filters
    return error.sum(dim=1).square() + error.square().sum(dim=1)


def _cast_direct(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's direct parameters and buffers, not its children's."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)

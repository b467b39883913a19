"""MLP heads: one or two hidden layers, trained by PyTorch."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.heads.heads import DenseLayer
from tasks.train.fit.examples import Examples

BATCH = 256
ROWS = 4096

DenseLayers = tuple[DenseLayer, ...]
"""From input to output."""


def fit_mlp(
    train: Examples,
    validation: Examples,
    hidden: Sequence[int],
    rate: float,
    weight_decay: float,
    epochs: int,
    seed: int,
) -> DenseLayers:
    """Train a network with ReLU hidden layers, and return it as of the epoch with the lowest validation loss.

    AdamW (Loshchilov & Hutter, Decoupled weight decay regularization, 2019) with a cosine schedule, from the
    initialisation of He et al. (Delving deep into rectifiers, 2015).

    Args:
        train: Examples with standardised features.
        validation: Examples whose mean log loss selects the epoch.
        hidden: The width of each hidden layer.
        rate: The initial learning rate.
        weight_decay: Weight decay; biases have none.
        epochs: Passes over the training images.
        seed: Decides the initial weights and the batches.

    Returns:
        The layers; none if training diverged in its first epoch.
    """
    random = torch.Generator().manual_seed(seed)
    network = _initialise([train.features.shape[1], *hidden, int(train.labels.max()) + 1], random)
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in network.parameters() if each.ndim > 1], "weight_decay": weight_decay},
            {"params": [each for each in network.parameters() if each.ndim == 1], "weight_decay": 0.0},
        ],
        lr=rate,
    )
    total = epochs * -(-len(train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.cos(np.pi * step / (2 * total)) ** 2)
    lowest, best = float("inf"), DenseLayers()
    for _ in range(epochs):
        for inputs, labels, weights in _shuffle(train, random):
            optimizer.zero_grad()
            (_find_losses(network(inputs), labels) * weights).mean().backward()  # type: ignore[no-untyped-call] # torch's own
            optimizer.step()
            schedule.step()
        loss = _measure_loss(network, validation)
        if loss < lowest:
            lowest, best = loss, _copy_layers(network)
    return best


def _initialise(sizes: Sequence[int], random: torch.Generator) -> nn.Sequential:
    network = nn.Sequential()
    for position, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = position == len(sizes) - 2
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call] # torch's own
        weights = torch.randn(inputs, outputs, generator=random) * (0.0 if last else (2 / inputs) ** 0.5)
        layer.weight.data, layer.bias.data = weights.T.contiguous(), torch.zeros(outputs)
        network.extend([layer] if last else [layer, nn.ReLU()])
    return network


def _shuffle(train: Examples, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    weights = torch.from_numpy(train.weights * len(train.weights)).float()
    for rows in torch.split(torch.randperm(len(labels), generator=random), BATCH):
        yield features[rows], labels[rows], weights[rows]


@torch.no_grad()
def _measure_loss(network: nn.Module, examples: Examples) -> float:
    parts = (torch.split(torch.from_numpy(each), ROWS) for each in (examples.features, examples.labels))
    losses = [_find_losses(network(inputs), labels) for inputs, labels in zip(*parts, strict=True)]
    return float(torch.cat(losses) @ torch.from_numpy(examples.weights).float())


def _find_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _copy_layers(network: nn.Sequential) -> DenseLayers:
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return tuple(
        (layer.weight.detach().double().numpy().T.copy(), layer.bias.detach().double().numpy()) for layer in linear
    )

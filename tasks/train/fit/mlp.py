"""Heads with hidden layers."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.heads.heads import Layer
from tasks.train.fit.sample import Sample

BATCH = 256
ROWS = 4096


Layers = tuple[Layer, ...]
"""The first layer first."""


def fit_mlp(
    train: Sample, validation: Sample, hidden: Sequence[int], rate: float, weight_decay: float, epochs: int, seed: int
) -> Layers:
    """Train a network with rectified hidden layers, and give it as it was after the epoch that validates best.

    AdamW (Loshchilov & Hutter, Decoupled weight decay regularization, 2019) with a cosine schedule, from the
    initialisation of He et al. (Delving deep into rectifiers, 2015).

    Args:
        train: what is learned, from standardised features.
        validation: what decides on the epoch, by mean log loss.
        hidden: the width of each hidden layer.
        rate: the learning rate at the start.
        weight_decay: of the weights.
        epochs: how often each image is seen.
        seed: decides where it starts, and the batches.

    Returns:
        The layers; none where the training ran away in its first epoch.
    """
    random = torch.Generator().manual_seed(seed)
    network = _start([train.features.shape[1], *hidden, int(train.labels.max()) + 1], random)
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in network.parameters() if each.ndim > 1], "weight_decay": weight_decay},
            {"params": [each for each in network.parameters() if each.ndim == 1], "weight_decay": 0.0},
        ],
        lr=rate,
    )
    total = epochs * -(-len(train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.cos(np.pi * step / (2 * total)) ** 2)
    lowest, best = float("inf"), Layers()
    for _ in range(epochs):
        for inputs, labels, shares in _draw(train, random):
            optimizer.zero_grad()
            (_find_losses(network(inputs), labels) * shares).mean().backward()  # type: ignore[no-untyped-call] # torch's own
            optimizer.step()
            schedule.step()
        loss = _measure(network, validation)
        if loss < lowest:
            lowest, best = loss, _read(network)
    return best


def _start(sizes: Sequence[int], random: torch.Generator) -> nn.Sequential:
    network = nn.Sequential()
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = place == len(sizes) - 2
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call] # torch's own
        weights = torch.randn(inputs, outputs, generator=random) * (0.0 if last else (2 / inputs) ** 0.5)
        layer.weight.data, layer.bias.data = weights.T.contiguous(), torch.zeros(outputs)
        network.extend([layer] if last else [layer, nn.ReLU()])
    return network


def _draw(train: Sample, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    shares = torch.from_numpy(train.shares * len(train.shares)).float()
    for rows in torch.split(torch.randperm(len(labels), generator=random), BATCH):
        yield features[rows], labels[rows], shares[rows]


@torch.no_grad()
def _measure(network: nn.Module, sample: Sample) -> float:
    parts = (torch.split(torch.from_numpy(each), ROWS) for each in (sample.features, sample.labels))
    losses = [_find_losses(network(inputs), labels) for inputs, labels in zip(*parts, strict=True)]
    return float(torch.cat(losses) @ torch.from_numpy(sample.shares).float())


def _find_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _read(network: nn.Sequential) -> Layers:
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return tuple(
        (layer.weight.detach().double().numpy().T.copy(), layer.bias.detach().double().numpy()) for layer in linear
    )

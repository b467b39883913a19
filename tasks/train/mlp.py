"""Heads with hidden layers: all learning rates and weight decays are trained together, on the same batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from storage.heads import Floats
from tasks.train.sample import Sample

BATCH = 256
ROWS = 4096
BETAS = 0.9, 0.999
EPSILON = 1e-8


@dataclass(frozen=True)
class Rates:
    """A candidate: its learning rate at the start, and its weight decay."""

    learning_rate: float
    weight_decay: float


Layers = tuple[tuple[Floats, Floats], ...]
"""Weights [in, out] and biases [out], the first layer first."""


def make_rates(learning_rates: Sequence[float], weight_decays: Sequence[float]) -> list[Rates]:
    """Pair each learning rate with each weight decay."""
    return [Rates(*each) for each in product(learning_rates, weight_decays)]


def fit_mlps(
    train: Sample, validation: Sample, hidden: Sequence[int], rates: Sequence[Rates], epochs: int, seed: int
) -> list[Layers]:
    """Train a network with rectified hidden layers for each candidate; each keeps the epoch that validates best.

    AdamW (Loshchilov & Hutter, Decoupled weight decay regularization, 2019) with a cosine schedule, from the
    initialisation of He et al. (Delving deep into rectifiers, 2015). Candidates start alike, and differ by their rates.

    Args:
        train: what is learned, from standardised features.
        validation: what decides on the epoch, by mean log loss.
        hidden: the width of each hidden layer.
        rates: the candidates.
        epochs: how often each image is seen.
        seed: decides where they start, and the batches.
    """
    classes = int(train.labels.max()) + 1
    sizes = [train.features.shape[1], *hidden, classes]
    random = torch.Generator().manual_seed(seed)
    stack = _Stack(_start(sizes, len(rates), random), rates)
    best = _Best(len(rates))
    total = epochs * max(1, -(-len(train.labels) // BATCH))
    for step, (inputs, labels, shares) in enumerate(_draw(train, epochs, random)):
        stack.step(inputs, labels, shares, np.cos(np.pi * step / (2 * total)) ** 2)
        if (step + 1) % (total // epochs) == 0:
            best.keep(stack.parameters, stack.measure(validation))
    return best.layers


def _start(sizes: Sequence[int], count: int, random: torch.Generator) -> list[Tensor]:
    """Give each layer's weights [candidates, in, out] and biases [candidates, 1, out]."""
    parameters = list[Tensor]()
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = place == len(sizes) - 2
        weights = torch.randn(inputs, outputs, generator=random) * (0.0 if last else (2 / inputs) ** 0.5)
        parameters += [weights.expand(count, -1, -1).clone(), torch.zeros(count, 1, outputs)]
    return [parameter.requires_grad_() for parameter in parameters]


def _draw(train: Sample, epochs: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    shares = torch.from_numpy(train.shares * len(train.shares)).float()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(labels), generator=random), BATCH):
            yield features[rows], labels[rows], shares[rows]


@dataclass
class _Stack:
    """All candidates' parameters, with AdamW's moments of their slopes."""

    parameters: list[Tensor]
    rates: Sequence[Rates]
    moments: list[tuple[Tensor, Tensor]] = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in self.parameters]

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits [candidates, n, classes]."""
        value = inputs.expand(len(self.rates), -1, -1)
        for place in range(0, len(self.parameters), 2):
            value = torch.baddbmm(self.parameters[place + 1], value.relu() if place else value, self.parameters[place])
        return value

    def step(self, inputs: Tensor, labels: Tensor, shares: Tensor, pace: float) -> None:
        losses = _losses(self.forward(inputs), labels)
        slopes = torch.autograd.grad((losses * shares).mean(dim=1).sum(), self.parameters)
        self.steps += 1
        learning = torch.tensor([pace * each.learning_rate for each in self.rates]).view(-1, 1, 1)
        decay = torch.tensor([each.weight_decay for each in self.rates]).view(-1, 1, 1)
        with torch.no_grad():
            for place, (slope, (first, second)) in enumerate(zip(slopes, self.moments, strict=True)):
                first.lerp_(slope, 1 - BETAS[0])
                second.lerp_(slope.square(), 1 - BETAS[1])
                size = (second / (1 - BETAS[1] ** self.steps)).sqrt_().add_(EPSILON)
                move = first / (1 - BETAS[0] ** self.steps) / size
                if place % 2 == 0:  # biases do not decay
                    move += decay * self.parameters[place]
                self.parameters[place] -= learning * move

    @torch.no_grad()
    def measure(self, sample: Sample) -> Tensor:
        """Give the mean log loss of each candidate."""
        parts = zip(
            torch.split(torch.from_numpy(sample.features), ROWS),
            torch.split(torch.from_numpy(sample.labels), ROWS),
            torch.split(torch.from_numpy(sample.shares).float(), ROWS),
            strict=True,
        )
        losses = [(_losses(self.forward(inputs), labels) * shares).sum(dim=1) for inputs, labels, shares in parts]
        return torch.stack(losses).sum(dim=0)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.transpose(1, 2), labels.expand(len(logits), -1), reduction="none")


class _Best:
    """The best epoch of each candidate so far."""

    def __init__(self, count: int) -> None:
        self.losses = torch.full((count,), torch.inf)
        self.layers = [Layers()] * count

    def keep(self, parameters: Sequence[Tensor], losses: Tensor) -> None:
        for number in torch.nonzero(losses < self.losses).flatten().tolist():
            arrays = [each[number].detach().double().numpy() for each in parameters]
            pairs = zip(arrays[::2], arrays[1::2], strict=True)
            self.layers[number] = tuple((weights, biases[0]) for weights, biases in pairs)
        self.losses = torch.minimum(self.losses, losses)

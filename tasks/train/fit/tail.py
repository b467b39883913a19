"""Tails: the layers after a cut, trained from their pretrained weights on stored features, with a new head."""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from storage.artifacts.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from storage.artifacts.head_files import Arrays
from storage.errors import SettingsError
from storage.progress import Advance
from tasks.heads.heads import Head, Layers, soften
from tasks.train.fit.calibrate import find_temperature
from tasks.train.fit.sample import Sample
from tasks.train.measure.figures import find_losses
from tasks.train.search.budget import OutOfTimeError
from tasks.train.settings import TailSettings

MOMENTUM = 0.9

logger = logging.getLogger(__name__)


class Trainable(Layers, Protocol):
    """Layers that can be trained: ``module`` maps [n, *shape] to what the classifier was given."""

    @property
    def module(self) -> nn.Module:
        """The layers."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image's feature."""
        ...


@dataclass(frozen=True)
class TailSchedule:
    """How a tail is trained: at which learning rate, with which L2 penalty on the head's weights, until when.

    ``deadline`` is a time of :func:`time.monotonic`.
    """

    settings: TailSettings
    learning_rate: float
    l2: float
    seed: int
    device: str
    deadline: float = math.inf


@dataclass(frozen=True)
class TailProgress:
    """After how many epochs what is the best: after how many it was reached, its log loss, and its numbers."""

    epochs: int
    best: int
    loss: float
    arrays: Arrays


def fit_tail(
    layers: Trainable,
    start: Head,
    train: Sample,
    validation: Sample,
    plan: TailSchedule,
    checkpoint: Path,
    advance: Advance = lambda _: None,
) -> tuple[int, Head]:
    """Train layers and their head together, and leave both as they were after the epoch that validates best.

    The head starts where it was fitted to what the pretrained layers give, so that they are not distorted by the slopes
    of a random one (Kumar et al., Fine-tuning can distort pretrained features, 2022). It learns faster than they do,
    both on a cosine schedule. Each epoch is judged by its log loss on validation at the best temperature. After each a
    checkpoint is written; where there is one, training goes on from it, to the same bits.

    Args:
        layers: Are trained.
        start: A softmax on what they give.
        train: What is learned; features as the lake has them.
        validation: What decides on the epoch.
        plan: How, and until when.
        checkpoint: The file to go on from.
        advance: Is told how many more images were seen.

    Returns:
        The best epoch, from 0, which is the start; and its head.

    Raises:
        SettingsError: where a GPU is asked for that is not there.
        OutOfTimeError: after an epoch, where others like it would not end by the plan's deadline.
    """
    with _repeatable(plan.device):
        tuning = _Tuning(layers, start, plan)
        progress = tuning.resume(load_checkpoint(checkpoint)) or TailProgress(
            0, 0, tuning.measure(validation), tuning.state()
        )
        advance(progress.epochs * len(train.labels))
        while progress.epochs < plan.settings.epochs:
            began = time.monotonic()
            tuning.run_epoch(train, progress.epochs, advance)
            progress = _judge(progress, tuning.measure(validation), tuning)
            save_checkpoint(checkpoint, tuning.suspend(progress))
            _check_time(plan, progress.epochs, time.monotonic() - began)
        head = tuning.finish(progress.arrays)
    return progress.best, head


def _judge(before: TailProgress, loss: float, tuning: "_Tuning") -> TailProgress:
    epochs = before.epochs + 1
    logger.info("tail: epoch %d, log loss %.4f on validation", epochs, loss)
    if loss < before.loss:
        return TailProgress(epochs, epochs, loss, tuning.state())
    return replace(before, epochs=epochs)


def _check_time(plan: TailSchedule, epochs: int, seconds: float) -> None:
    """End a training whose other epochs would not end in time, if each took as many seconds as the last."""
    left = (plan.settings.epochs - epochs) * seconds
    if left and time.monotonic() + left > plan.deadline:
        words = f"ended after epoch {epochs} of {plan.settings.epochs}: the others would take about {left:,.0f} s"
        raise OutOfTimeError(f"{words}, and search.minutes leave it {plan.deadline - time.monotonic():,.0f} s")


@contextlib.contextmanager
def _repeatable(device: str) -> Iterator[None]:
    """Take algorithms that give the same bits each time, and put chance back as it was afterwards."""
    if device != "cpu" and not torch.cuda.is_available():
        raise SettingsError(f"train.device {device}", "needs a GPU and none is visible", "Take --train.device cpu")
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to repeat itself
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


class _Whole(nn.Module):
    """Layers and a softmax on what they give, standardised as it was at the start; from features to logits."""

    def __init__(self, layers: Trainable, head: Head) -> None:
        super().__init__()
        self.layers, self.shape = layers.module, layers.shape
        self.weights, self.bias = (nn.Parameter(torch.from_numpy(each).float()) for each in (head.weights, head.bias))
        self.register_buffer("mean", torch.from_numpy(head.mean).float())
        self.register_buffer("scale", torch.from_numpy(head.scale).float())

    def forward(self, features: Tensor) -> Tensor:
        value = (self.layers(features.view(-1, *self.shape)) - self.mean) / self.scale
        logits: Tensor = value @ self.weights + self.bias
        return logits


class _Tuning:
    """A training under way: the network and its optimizer."""

    def __init__(self, layers: Trainable, start: Head, plan: TailSchedule) -> None:
        self.layers, self.start, self.plan = layers, start, plan
        self.whole = _Whole(layers, start).to(plan.device)
        self.optimizer = _make_optimizer(self.whole, plan)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def run_epoch(self, train: Sample, epoch: int, advance: Advance) -> None:
        """Show each image once, in an order that follows from the seed and the epoch."""
        random = np.random.default_rng([self.plan.seed, epoch])
        order = random.permutation(len(train.labels))
        torch.manual_seed(int(random.integers(1 << 63)))  # for dropout
        _set_mode(self.whole, batch_norms=self.plan.settings.batch_norms)
        batches = np.array_split(order, -(-len(order) // self.plan.settings.batch))
        for number, rows in enumerate(batches):
            passed = (epoch + number / len(batches)) / self.plan.settings.epochs
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * float(np.cos(np.pi * passed / 2) ** 2)
            self._step(train, rows)
            advance(len(rows))

    def _step(self, train: Sample, rows: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        place = self.plan.device
        logits = self.whole(torch.from_numpy(train.features[rows]).to(place))
        losses = functional.cross_entropy(logits, torch.from_numpy(train.labels[rows]).to(place), reduction="none")
        shares = torch.from_numpy(train.shares[rows] * len(train.shares)).float().to(place)
        penalty = self.plan.l2 / 2 * self.whole.weights.square().sum()
        self.optimizer.zero_grad()
        ((losses * shares).mean() + penalty).backward()  # type: ignore[no-untyped-call] # torch's own
        self.optimizer.step()

    def measure(self, sample: Sample) -> float:
        """Give the mean log loss at the best temperature; infinite where the training has run away."""
        logits = self._head().logits(self.layers.run(sample.features))
        if not np.isfinite(logits).all():
            return float("inf")
        chances = soften(logits, find_temperature(logits, sample.labels))
        return float(find_losses(chances, sample.labels).mean())

    def state(self) -> Arrays:
        """Give a copy of the network's numbers, by name."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.whole.state_dict().items()}

    def suspend(self, progress: TailProgress) -> Checkpoint:
        """Write down all that the rest of the training follows from."""
        moments = {
            f"optimizer.{number}.{name}": tensor.cpu().numpy()
            for number, held in self.optimizer.state_dict()["state"].items()
            for name, tensor in held.items()
        }
        arrays = {**_prefix("now.", self.state()), **_prefix("best.", progress.arrays), **moments}
        facts = {"epochs": progress.epochs, "best": progress.best, "loss": progress.loss}
        return Checkpoint(arrays, facts)

    def resume(self, checkpoint: Checkpoint | None) -> TailProgress | None:
        """Go back to where a training broke off."""
        if checkpoint is None:
            return None
        self._load(_select("now.", checkpoint.arrays))
        state: dict[int, dict[str, Tensor]] = {}
        for path, array in _select("optimizer.", checkpoint.arrays).items():
            number, name = path.split(".", 1)
            state.setdefault(int(number), {})[name] = torch.from_numpy(array)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        logger.info("tail: goes on after epoch %d", checkpoint.facts["epochs"])
        return TailProgress(**checkpoint.facts, arrays=_select("best.", checkpoint.arrays))

    def finish(self, arrays: Arrays) -> Head:
        """Leave the layers with the best numbers, in evaluation mode; gives the head."""
        self._load(arrays)
        self.whole.cpu().eval()
        return self._head()

    def _load(self, arrays: Arrays) -> None:
        self.whole.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})

    def _head(self) -> Head:
        weights, bias = (each.detach().cpu().double().numpy() for each in (self.whole.weights, self.whole.bias))
        return replace(self.start, weights=weights, bias=bias)


def _make_optimizer(whole: _Whole, plan: TailSchedule) -> torch.optim.Optimizer:
    """Make it with a slow rate for the layers, whose biases and norms do not decay, and a fast one for the head."""
    layers = list(whole.layers.parameters())
    slow, fast = plan.learning_rate, plan.learning_rate * plan.settings.head_factor
    groups: list[dict[str, Any]] = [
        {"params": [each for each in layers if each.ndim > 1], "lr": slow, "weight_decay": plan.settings.weight_decay},
        {"params": [each for each in layers if each.ndim <= 1], "lr": slow},
        {"params": [whole.weights, whole.bias], "lr": fast},
    ]
    if plan.settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=0)
    return torch.optim.AdamW(groups, weight_decay=0)


def _set_mode(whole: nn.Module, *, batch_norms: bool) -> None:
    whole.train()
    for module in whole.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not batch_norms:  # noqa: SLF001 - no public name
            module.eval()


def _prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _select(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

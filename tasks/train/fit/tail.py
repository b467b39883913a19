"""Tails: the layers after a cut, fine-tuned on stored features together with a new head."""

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
from tasks.heads.heads import Head, TailLayers, tempered_softmax
from tasks.train.calibrate.temperature import find_temperature
from tasks.train.fit.examples import Examples
from tasks.train.measure.metrics import compute_log_losses
from tasks.train.search.budget import OutOfTimeError
from tasks.train.settings import TailSettings

MOMENTUM = 0.9

logger = logging.getLogger(__name__)


class Trainable(TailLayers, Protocol):
    """Layers that can be trained; ``module`` maps [n, *shape] to the classifier's inputs."""

    @property
    def module(self) -> nn.Module:
        """The layers."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image's feature."""
        ...


@dataclass(frozen=True)
class TailSchedule:
    """How a tail is trained: ``l2`` penalises the head's weights; ``deadline`` is a :func:`time.monotonic` time."""

    settings: TailSettings
    learning_rate: float
    l2: float
    seed: int
    device: str
    deadline: float = math.inf


@dataclass(frozen=True)
class TailProgress:
    """The epochs done so far, and the best of them with its validation log loss and its arrays."""

    epochs: int
    best: int
    loss: float
    arrays: Arrays


def fit_tail(
    layers: Trainable,
    start: Head,
    train: Examples,
    validation: Examples,
    schedule: TailSchedule,
    checkpoint: Path,
    advance: Advance = lambda _: None,
) -> tuple[int, Head]:
    """Train layers and their head together, and restore both to the epoch with the lowest validation loss.

    The head starts out fitted to the outputs of the pretrained layers, because the gradients of a random head would
    distort them (Kumar et al., Fine-tuning can distort pretrained features, 2022). It has a higher learning rate than
    they have; both follow a cosine schedule. The validation log loss is taken at the best temperature. A checkpoint is
    written after each epoch; training resumes from an existing one and ends with the same bits.

    Args:
        layers: The layers, which are trained in place.
        start: A softmax fitted to their outputs.
        train: Training examples, with features as the lake stores them.
        validation: Examples that select the epoch.
        schedule: Hyperparameters and deadline.
        checkpoint: The file to write to and to resume from.
        advance: Called with the number of images processed.

    Returns:
        The best epoch, where 0 is the start, and its head.

    Raises:
        SettingsError: if the device is a GPU and none is available.
        OutOfTimeError: after an epoch, if the remaining epochs would not finish by the deadline.
    """
    with _deterministic(schedule.device):
        tuning = _Tuning(layers, start, schedule)
        progress = tuning.resume(load_checkpoint(checkpoint)) or TailProgress(
            0, 0, tuning.measure(validation), tuning.state()
        )
        advance(progress.epochs * len(train.labels))
        while progress.epochs < schedule.settings.epochs:
            began = time.monotonic()
            tuning.run_epoch(train, progress.epochs, advance)
            progress = _record_epoch(progress, tuning.measure(validation), tuning)
            save_checkpoint(checkpoint, tuning.suspend(progress))
            _check_time(schedule, progress.epochs, time.monotonic() - began)
        head = tuning.finish(progress.arrays)
    return progress.best, head


def _record_epoch(before: TailProgress, loss: float, tuning: "_Tuning") -> TailProgress:
    epochs = before.epochs + 1
    logger.info("tail: epoch %d, log loss %.4f on validation", epochs, loss)
    if loss < before.loss:
        return TailProgress(epochs, epochs, loss, tuning.state())
    return replace(before, epochs=epochs)


def _check_time(schedule: TailSchedule, epochs: int, seconds: float) -> None:
    """Stop training if the remaining epochs, each as long as the last, would not finish by the deadline."""
    left = (schedule.settings.epochs - epochs) * seconds
    if left and time.monotonic() + left > schedule.deadline:
        reason = f"stopped after epoch {epochs} of {schedule.settings.epochs}: the rest would take about {left:,.0f} s"
        raise OutOfTimeError(f"{reason}, and search.minutes leaves {schedule.deadline - time.monotonic():,.0f} s")


@contextlib.contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Use deterministic algorithms, and restore the random state afterwards."""
    if device != "cpu" and not torch.cuda.is_available():
        raise SettingsError(f"train.device {device}", "needs a GPU and none is visible", "Use --train.device cpu")
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS to be deterministic
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
            yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


class _Network(nn.Module):
    """Layers and a softmax on their outputs, standardised as at the start; maps features to logits."""

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
    """A network in training, with its optimizer."""

    def __init__(self, layers: Trainable, start: Head, schedule: TailSchedule) -> None:
        self.layers, self.start, self.schedule = layers, start, schedule
        self.network = _Network(layers, start).to(schedule.device)
        self.optimizer = _make_optimizer(self.network, schedule)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def run_epoch(self, train: Examples, epoch: int, advance: Advance) -> None:
        """Train on each image once, in an order that depends on the seed and the epoch alone."""
        random = np.random.default_rng([self.schedule.seed, epoch])
        order = random.permutation(len(train.labels))
        torch.manual_seed(int(random.integers(1 << 63)))  # for dropout
        _set_mode(self.network, batch_norms=self.schedule.settings.batch_norms)
        batches = np.array_split(order, -(-len(order) // self.schedule.settings.batch))
        for number, rows in enumerate(batches):
            done = (epoch + number / len(batches)) / self.schedule.settings.epochs
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * float(np.cos(np.pi * done / 2) ** 2)
            self._step(train, rows)
            advance(len(rows))

    def _step(self, train: Examples, rows: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        device = self.schedule.device
        logits = self.network(torch.from_numpy(train.features[rows]).to(device))
        losses = functional.cross_entropy(logits, torch.from_numpy(train.labels[rows]).to(device), reduction="none")
        weights = torch.from_numpy(train.weights[rows] * len(train.weights)).float().to(device)
        penalty = self.schedule.l2 / 2 * self.network.weights.square().sum()
        self.optimizer.zero_grad()
        ((losses * weights).mean() + penalty).backward()  # type: ignore[no-untyped-call] # torch's own
        self.optimizer.step()

    def measure(self, examples: Examples) -> float:
        """Return the mean log loss at the best temperature; infinite if training has diverged."""
        logits = self._head().logits(self.layers.run(examples.features))
        if not np.isfinite(logits).all():
            return float("inf")
        probabilities = tempered_softmax(logits, find_temperature(logits, examples.labels))
        return float(compute_log_losses(probabilities, examples.labels).mean())

    def state(self) -> Arrays:
        """Return a copy of the network's arrays, by name."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}

    def suspend(self, progress: TailProgress) -> Checkpoint:
        """Return everything that training needs to resume."""
        moments = {
            f"optimizer.{number}.{name}": tensor.cpu().numpy()
            for number, moment in self.optimizer.state_dict()["state"].items()
            for name, tensor in moment.items()
        }
        arrays = {**_prefix("now.", self.state()), **_prefix("best.", progress.arrays), **moments}
        facts = {"epochs": progress.epochs, "best": progress.best, "loss": progress.loss}
        return Checkpoint(arrays, facts)

    def resume(self, checkpoint: Checkpoint | None) -> TailProgress | None:
        """Restore the state of an interrupted training."""
        if checkpoint is None:
            return None
        self._load(_select("now.", checkpoint.arrays))
        state: dict[int, dict[str, Tensor]] = {}
        for path, array in _select("optimizer.", checkpoint.arrays).items():
            number, name = path.split(".", 1)
            state.setdefault(int(number), {})[name] = torch.from_numpy(array)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        logger.info("tail: resumed after epoch %d", checkpoint.facts["epochs"])
        return TailProgress(**checkpoint.facts, arrays=_select("best.", checkpoint.arrays))

    def finish(self, arrays: Arrays) -> Head:
        """Load the best arrays into the layers, switch to evaluation mode, and return the head."""
        self._load(arrays)
        self.network.cpu().eval()
        return self._head()

    def _load(self, arrays: Arrays) -> None:
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})

    def _head(self) -> Head:
        weights, bias = (each.detach().cpu().double().numpy() for each in (self.network.weights, self.network.bias))
        return replace(self.start, weights=weights, bias=bias)


def _make_optimizer(network: _Network, schedule: TailSchedule) -> torch.optim.Optimizer:
    """Use a low learning rate for the layers, whose biases and norms do not decay, and a high one for the head."""
    layers, decay = list(network.layers.parameters()), schedule.settings.weight_decay
    slow, fast = schedule.learning_rate, schedule.learning_rate * schedule.settings.head_factor
    groups: list[dict[str, Any]] = [
        {"params": [each for each in layers if each.ndim > 1], "lr": slow, "weight_decay": decay},
        {"params": [each for each in layers if each.ndim <= 1], "lr": slow},
        {"params": [network.weights, network.bias], "lr": fast},
    ]
    if schedule.settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=0)
    return torch.optim.AdamW(groups, weight_decay=0)


def _set_mode(network: nn.Module, *, batch_norms: bool) -> None:
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not batch_norms:  # noqa: SLF001 - no public name
            module.eval()


def _prefix(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _select(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

"""Successive halving: try many contenders on few labels, and the better half of them on twice as many."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.statistics.shares import find_wilson_interval
from tasks.train.settings import Kind

FINALISTS = 2
"""Contenders that are trained on all labels."""
MIN_ROUNDS = 3
"""The minimum number of rounds, as a learning curve needs points."""
MIN_LABELS = 2
"""The minimum number of labels of each class that has as many."""


class Contender(NamedTuple):
    """A kind of head on features at a cut."""

    cut: str
    kind: Kind


@dataclass(frozen=True)
class Trial:
    """A contender trained on ``images`` images, a ``share`` of all, and measured on validation images.

    ``correct`` says for each validation image whether its class was predicted; ``loss`` is their mean log loss in nats.
    ``epoch`` is a tail's best epoch, where 0 means that it stayed a frozen backbone with a softmax.
    """

    contender: Contender
    images: int
    share: float
    correct: Mapping[str, bool]
    loss: float
    seconds: float
    epoch: int | None = None

    @property
    def accuracy(self) -> float:
        """The accuracy on validation images."""
        return sum(self.correct.values()) / max(len(self.correct), 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson 1927)."""
        low, high = find_wilson_interval(sum(self.correct.values()), len(self.correct))
        return float(low), float(high)


@dataclass(frozen=True)
class ContenderResult:
    """The trial of a contender at a share of the labels, None if it was not tried, and what was decided and why."""

    contender: Contender
    share: float
    trial: Trial | None
    verdict: str


Attempt = Callable[[Contender, float], Trial | None]
"""Trains a contender on a share of the labels; returns None if there is no time."""


def choose_cuts(saved: Mapping[str, float], count: int) -> list[str]:
    """Choose the last cut and others that spread evenly over the share of the forward pass that freezing saves.

    Args:
        saved: That share for each cut, in the order of the network.
        count: The number of cuts; fewer if the network has fewer. ``input`` is never chosen.
    """
    names = [name for name in saved if name != "input"]
    chosen = names[-1:]
    for number in range(1, count):
        target = 1 - number / count
        left = [name for name in names if name not in chosen]
        if left:
            chosen.append(min(left, key=lambda name: abs(saved[name] - target)))
    return sorted(chosen, key=names.index, reverse=True)


def list_shares(contenders: int, classes: Mapping[str, int]) -> list[float]:
    """List the shares of the labels, doubling up to 1, in as many rounds as halving the contenders down to two takes.

    Args:
        contenders: The number of contenders.
        classes: Training images of each class; the first share has at least two a class on average.
    """
    halvings = max(MIN_ROUNDS, math.ceil(math.log2(max(contenders, 1))))
    room = math.floor(math.log2(max(sum(classes.values()) / (MIN_LABELS * max(len(classes), 1)), 1)))
    rounds = min(halvings, room + 1)
    return [2.0**-power for power in range(rounds - 1, -1, -1)]


def take_subset(rows: Sequence[tuple[str, str]], share: float, seed: int) -> list[int]:
    """Choose a share of the rows (image_id, class) of each class; larger shares contain smaller ones.

    Rows are taken in the order of SHA-256(seed, id), which is independent of other rows, and at least two of each class
    that has as many.

    Returns:
        The positions of the rows, ascending.
    """
    counts = Counter(name for _, name in rows)
    limits = {name: max(math.ceil(share * count), MIN_LABELS) for name, count in counts.items()}
    keys = [hashlib.sha256(f"share:{seed}:{image_id}".encode()).digest() for image_id, _ in rows]
    taken, chosen = Counter[str](), list[int]()
    for position in sorted(range(len(rows)), key=keys.__getitem__):
        name = rows[position][1]
        if taken[name] < limits[name]:
            taken[name] += 1
            chosen.append(position)
    return sorted(chosen)


def run_rounds(contenders: Sequence[Contender], shares: Sequence[float], attempt: Attempt) -> list[ContenderResult]:
    """Try contenders on a share of the labels, and promote the better half, but at least two, to the next share.

    Better means a lower validation log loss. Successive halving (Jamieson & Talwalkar, Non-stochastic best arm
    identification and hyperparameter optimization, 2016), with labels as the resource. If time runs out within a
    round, it is the last.
    """
    results, left = list[ContenderResult](), list(contenders)
    for share in shares:
        tried = {contender: attempt(contender, share) for contender in left}
        trials = [trial for trial in tried.values() if trial]
        out_of_time, last = len(trials) < len(tried), share == shares[-1]
        promoted = halve(trials)
        for contender, trial in tried.items():
            verdict = _explain(trial, promoted, out_of_time=out_of_time, last=last)
            results.append(ContenderResult(contender, share, trial, verdict))
        if out_of_time:
            break
        left = [trial.contender for trial in promoted]
    return results


def halve(trials: Sequence[Trial]) -> list[Trial]:
    """Return the half with the lowest loss, rounded up, but at least two; of equals, the first."""
    return sorted(trials, key=lambda trial: trial.loss)[: max(FINALISTS, math.ceil(len(trials) / 2))]


def _explain(trial: Trial | None, promoted: Sequence[Trial], *, out_of_time: bool, last: bool) -> str:
    if trial is None:
        return "not tried: no minutes left"
    if last:
        return "has all labels"
    if out_of_time:
        return "stopped: no minutes left"
    if trial in promoted:
        return "promoted"
    return f"dropped: log loss over {promoted[-1].loss:.3f}"


def rank_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials by their share of the labels, largest first, and by validation loss, lowest first."""
    return sorted(trials, key=lambda trial: (-trial.share, trial.loss))


def choose_winner(trials: Sequence[Trial]) -> Trial:
    """Choose the best trial, skipping tails that never improved on their start: a head does the same for less."""
    return rank_trials([trial for trial in trials if trial.epoch != 0])[0]


def rank_cuts(trials: Sequence[Trial]) -> list[str]:
    """Sort cuts by their best head."""
    return list(dict.fromkeys(trial.contender.cut for trial in rank_trials(trials)))

"""Successive halving: many contenders on few labels, the better half on twice as many, until all labels are used."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.train.measure.intervals import wilson
from tasks.train.settings import Kind

FINAL = 2
"""Contenders that reach all labels."""
ROUNDS = 3
"""Rounds at least, as a learning curve needs points."""
FEWEST = 2
"""Labels of each class at least, where it has as many."""


class Contender(NamedTuple):
    """A way of training: a kind of head on what a cut gives."""

    cut: str
    kind: Kind


@dataclass(frozen=True)
class Trial:
    """What a contender came to: images that it was trained on, and what it was right about in validation.

    ``right`` has the validation images, ``loss`` is their mean log loss, nats. ``epoch`` is a tail's best; at 0,
    which is its start, it is a frozen backbone with a softmax.
    """

    contender: Contender
    images: int
    share: float
    right: Mapping[str, bool]
    loss: float
    seconds: float
    epoch: int | None = None

    @property
    def accuracy(self) -> float:
        """The share of validation images that it is right about."""
        return sum(self.right.values()) / max(len(self.right), 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval (Wilson 1927)."""
        low, high = wilson(sum(self.right.values()), len(self.right))
        return float(low), float(high)


@dataclass(frozen=True)
class ContenderResult:
    """A contender at a share of the labels: its trial, None where there was none, and what was decided, and why."""

    contender: Contender
    share: float
    trial: Trial | None
    verdict: str


Attempt = Callable[[Contender, float], Trial | None]
"""Trains a contender on a share of the labels; None where there is no time for it."""


def choose_cuts(saved: Mapping[str, float], count: int) -> list[str]:
    """Choose the last cut and others, spread evenly over the share of the forward pass that freezing saves.

    Args:
        saved: That share for each cut, the first cut first.
        count: How many; fewer where there are no more. ``input`` is none of them.
    """
    names = [name for name in saved if name != "input"]
    chosen = names[-1:]
    for place in range(1, count):
        wanted = 1 - place / count
        left = [name for name in names if name not in chosen]
        if left:
            chosen.append(min(left, key=lambda name: abs(saved[name] - wanted)))
    return sorted(chosen, key=names.index, reverse=True)


def list_shares(contenders: int, classes: Mapping[str, int]) -> list[float]:
    """List the shares of the labels, doubling up to all: as many as halve the contenders down to two.

    Args:
        contenders: How many there are.
        classes: Images to train on of each class; the first share has two a class on average.
    """
    halvings = max(ROUNDS, math.ceil(math.log2(max(contenders, 1))))
    room = math.floor(math.log2(max(sum(classes.values()) / (FEWEST * max(len(classes), 1)), 1)))
    rounds = min(halvings, room + 1)
    return [2.0**-power for power in range(rounds - 1, -1, -1)]


def take_share(rows: Sequence[tuple[str, str]], share: float, seed: int) -> list[int]:
    """Choose the rows of a share of each class; a larger share has all rows of a smaller one.

    Rows (image_id, class) come in the order of SHA-256(seed, id), so that a row's turn depends on no other row. Each
    class has two at least, where it has as many.

    Returns:
        the rows' places, ascending.
    """
    counts = Counter(name for _, name in rows)
    most = {name: max(math.ceil(share * count), FEWEST) for name, count in counts.items()}
    keys = [hashlib.sha256(f"share:{seed}:{image_id}".encode()).digest() for image_id, _ in rows]
    taken, chosen = Counter[str](), list[int]()
    for place in sorted(range(len(rows)), key=keys.__getitem__):
        name = rows[place][1]
        if taken[name] < most[name]:
            taken[name] += 1
            chosen.append(place)
    return sorted(chosen)


def run_rounds(contenders: Sequence[Contender], shares: Sequence[float], attempt: Attempt) -> list[ContenderResult]:
    """Try contenders on a share of the labels, and carry the better half on to the next share, but two at least.

    Better is a lower log loss on validation. Successive halving (Jamieson & Talwalkar, Non-stochastic best arm
    identification and hyperparameter optimization, 2016), with labels as the budget. Where time runs out within a
    round, that round is the last.
    """
    outcomes, left = list[ContenderResult](), list(contenders)
    for share in shares:
        tried = {contender: attempt(contender, share) for contender in left}
        trials = [trial for trial in tried.values() if trial]
        spent, last = len(trials) < len(tried), share == shares[-1]
        kept = halve(trials)
        for contender, trial in tried.items():
            outcomes.append(ContenderResult(contender, share, trial, _judge(trial, kept, spent=spent, last=last)))
        if spent:
            break
        left = [trial.contender for trial in kept]
    return outcomes


def halve(trials: Sequence[Trial]) -> list[Trial]:
    """Keep the half with the lowest loss, rounded up, but two at least; the first of equals."""
    return sorted(trials, key=lambda trial: trial.loss)[: max(FINAL, math.ceil(len(trials) / 2))]


def _judge(trial: Trial | None, kept: Sequence[Trial], *, spent: bool, last: bool) -> str:
    if trial is None:
        return "not tried: no minutes left"
    if last:
        return "has all labels"
    if spent:
        return "ended: no minutes left"
    if trial in kept:
        return "carried on"
    return f"dropped: log loss over {kept[-1].loss:.3f}"


def rank(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials: what has seen the most labels first, among those the lowest loss on validation."""
    return sorted(trials, key=lambda trial: (-trial.share, trial.loss))


def choose(trials: Sequence[Trial]) -> Trial:
    """Choose the best trial that is what it is called: a tail that learned nothing leaves its place to a head."""
    return rank([trial for trial in trials if trial.epoch != 0])[0]


def rank_cuts(trials: Sequence[Trial]) -> list[str]:
    """Sort cuts by the best head that each has."""
    return list(dict.fromkeys(trial.contender.cut for trial in rank(trials)))

"""Cross-validation by group: what heads of the chosen kind say of images of groups that they never saw."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import TrainError
from storage.vectors.feature_file import Matrix
from tasks.heads.answers import Marks
from tasks.heads.heads import Floats
from tasks.train.fit.candidates import Choice, fit_heads
from tasks.train.fit.multi_label import average_areas, fit_label_heads
from tasks.train.fit.sample import Names
from tasks.train.fit.unknown_classes import narrow
from tasks.train.measure.figures import bound
from tasks.train.measure.intervals import draw
from tasks.train.rows.splits import assign_fold
from tasks.train.settings import TrainSettings

CELLS = 1 << 22
"""Counts that are held at once."""

Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Folds:
    """The fold of each of n images, of so many, and the number of its group."""

    count: int
    folds: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    def turns(self) -> Iterator[tuple[Chosen, Chosen, Chosen]]:
        """Give for each fold in turn which images are trained on, calibrated with and asked about."""
        for number in range(self.count):
            asked, choosing = self.folds == number, self.folds == (number + 1) % self.count
            yield ~(asked | choosing), choosing, asked


def deal(keys: Sequence[str], settings: TrainSettings) -> Folds:
    """Deal images out to folds by the keys of their groups.

    Raises:
        TrainError: where a fold has no image.
    """
    groups = np.unique(np.array(keys), return_inverse=True)[1]
    folds = np.array([assign_fold(key, settings) for key in keys], np.int64)
    if len(np.unique(folds)) < settings.folds:
        rule = f"leave a fold empty of the {groups.max() + 1} groups to train and choose on"
        raise TrainError(f"{settings.folds} folds", rule, "Ask for fewer with --train.folds, or add groups")
    return Folds(settings.folds, folds, groups)


def cross_validate(features: Matrix, names: Names, folds: Folds, choice: Choice, settings: TrainSettings) -> Floats:
    """Tell of each image whether a head that never saw its group finds its class, 1 or 0 [n].

    Args:
        features: of the images alone, without views [n, dim].
        names: their classes [n].
        folds: their folds.
        choice: the kind of head, and what was chosen about it.
        settings: how it is trained.

    Raises:
        TrainError: where what is left to train on has one class.
    """
    chosen, right = narrow(settings, choice), np.zeros(len(names))
    for training, choosing, asked in folds.turns():
        if len(np.unique(names[training])) < 2:  # noqa: PLR2004 - a choice needs two
            rule = f"leave one class to train on, {names[training][0]}" if training.any() else "leave none to train on"
            raise TrainError(f"{folds.count} folds", rule, "Ask for more with --train.folds, or for none")
        head = fit_heads((features[training], names[training]), (features[choosing], names[choosing]), chosen)[0].head
        right[asked] = np.array(head.classes)[head.probabilities(features[asked]).argmax(axis=1)] == names[asked]
    return right


def cross_validate_labels(
    features: Matrix, truth: Marks, folds: Folds, choice: Choice, settings: TrainSettings
) -> Floats:
    """Give the probabilities of each image's labels by heads that never saw its group [n, labels].

    A label that all or none of what is left to train on has is not learned there: its probability is its share.
    """
    chosen, chances = narrow(settings, choice), np.zeros(truth.shape)
    for training, choosing, asked in folds.turns():
        shares = truth[training].mean(axis=0) if training.any() else np.zeros(truth.shape[1])
        known = np.flatnonzero((shares > 0) & (shares < 1))
        chances[asked] = shares
        if len(known):
            parts = [(features[at], truth[at][:, known]) for at in (training, choosing)]
            head = fit_label_heads(parts[0], parts[1], tuple(map(str, known)), chosen)[0].head
            chances[np.ix_(asked, known)] = head.probabilities(features[asked])
    return chances


def measure_folds(name: str, figure: Callable[[Floats], Floats], folds: Folds, seed: int) -> dict[str, float]:
    """Give a figure over all images, and the ends of its 95 % interval: of 1,000 resamples of the groups.

    Args:
        name: of the figure.
        figure: its values [k] where images count so often [k, n].
        folds: the images' groups [n].
        seed: of the resamples.
    """
    groups, count, known = folds.groups, int(folds.groups.max()) + 1, f"cv_{name}"
    spread = [
        figure(part[:, groups])
        for counts in draw(count, seed)
        for part in np.array_split(counts, -(-len(counts) * len(groups) // CELLS))
    ]
    return bound({known: figure(np.ones((1, len(groups))))}, {known: np.concatenate(spread)}, count)


def measure_classes(right: Floats, folds: Folds, seed: int) -> dict[str, float]:
    """Give the accuracy over all folds."""
    return measure_folds("accuracy", lambda counts: counts @ right / counts.sum(axis=1), folds, seed)


def measure_labels(chances: Floats, truth: Marks, folds: Folds, seed: int) -> dict[str, float]:
    """Give the mAP over all folds."""
    figure = "mean_average_precision"
    return measure_folds(figure, lambda counts: average_areas(counts, chances, truth), folds, seed)

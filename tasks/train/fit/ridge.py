"""Ridge heads: least squares on the classes' indicators, at every strength of L2 from one decomposition."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.heads.heads import Floats
from tasks.train.fit.axes import Axes
from tasks.train.fit.sample import Sample


def fit_ridge(axes: Axes, sample: Sample, strengths: Sequence[float]) -> Iterator[tuple[Floats, Floats]]:
    """Minimise the mean of ||indicators - scores||^2 + l2 ||weights||^2 for each l2.

    Along the axes, of mean squares s, the normal equations are diagonal: what the indicators have along an axis is
    divided by s + l2 (Hoerl & Kennard, Ridge regression, 1970).

    Args:
        axes: those of the sample's features.
        sample: what is learned.
        strengths: values of l2, positive.

    Yields:
        For each l2 the weights [dim, classes] of the standardised features, and the biases [classes].
    """
    biases: Floats = np.bincount(sample.labels, sample.shares).astype(np.float64)
    shared = np.zeros((len(axes.mean), len(biases)))
    for part, standard in axes.standardise(sample.features):
        indicators = np.eye(len(biases))[sample.labels[part]] - biases
        shared += standard.T @ (indicators * sample.shares[part][:, None])
    along = axes.directions.T @ shared
    for l2 in strengths:
        yield axes.directions @ (along / (axes.squares + l2)[:, None]), biases

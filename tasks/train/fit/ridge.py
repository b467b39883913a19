"""Ridge heads: least squares on class indicators, at every strength of L2 from one decomposition."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.heads.heads import DenseLayer, Floats
from tasks.train.fit.axes import PrincipalAxes
from tasks.train.fit.examples import Examples


def fit_ridge(axes: PrincipalAxes, examples: Examples, strengths: Sequence[float]) -> Iterator[DenseLayer]:
    """Minimise the mean of ||indicators - scores||^2 + l2 ||weights||^2 for each l2.

    Along the principal axes, of mean squares s, the normal equations are diagonal: the projection of the indicators on
    an axis is divided by s + l2 (Hoerl & Kennard, Ridge regression, 1970).

    Args:
        axes: The principal axes of the features.
        examples: What to learn.
        strengths: Values of l2, positive.

    Yields:
        For each l2, the weights [dim, classes] of the standardised features, and the biases [classes].
    """
    biases: Floats = np.bincount(examples.labels, examples.weights).astype(np.float64)
    products = np.zeros((len(axes.mean), len(biases)))
    for part, standard in axes.standardise(examples.features):
        indicators = np.eye(len(biases))[examples.labels[part]] - biases
        products += standard.T @ (indicators * examples.weights[part][:, None])
    projected = axes.directions.T @ products
    for l2 in strengths:
        yield axes.directions @ (projected / (axes.squares + l2)[:, None]), biases

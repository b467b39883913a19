"""Class prototypes: the nearest class mean, which needs no optimisation and few labels."""

import numpy as np

from tasks.heads.heads import DenseLayer
from tasks.train.fit.axes import PrincipalAxes
from tasks.train.fit.examples import Examples


def fit_prototypes(axes: PrincipalAxes, examples: Examples) -> DenseLayer:
    """Take the mean of each class (Snell et al., Prototypical networks for few-shot learning, 2017, section 2.4).

    Minus half the squared distance of a standardised image x to a mean m is m'x - m'm / 2, up to a term that all
    classes share. Dividing by the square root of dim keeps it from growing with dim; the temperature does the rest.

    Args:
        axes: The principal axes of the features.
        examples: What to learn; their weights are ignored.

    Returns:
        Weights [dim, classes] of the standardised features, and biases [classes].
    """
    counts = np.bincount(examples.labels)
    means = np.zeros((len(counts), len(axes.mean)))
    for part, standard in axes.standardise(examples.features):
        means += np.eye(len(counts))[examples.labels[part]].T @ standard
    means /= counts[:, None]
    size = np.sqrt(len(axes.mean))
    return means.T / size, -(means**2).sum(axis=1) / (2 * size)

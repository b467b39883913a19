"""Class prototypes: an image is of the class whose mean is nearest, which needs no fit and few labels."""

import numpy as np

from tasks.heads.heads import Floats
from tasks.train.fit.axes import Axes
from tasks.train.fit.sample import Sample


def fit_prototypes(axes: Axes, sample: Sample) -> tuple[Floats, Floats]:
    """Take the mean of each class (Snell et al., Prototypical networks for few-shot learning, 2017, section 2.4).

    Minus half the squared distance of a standardised image x to a mean m is m'x - m'm / 2, less what all classes share.
    It is divided by the square root of dim, so that it does not grow with it; a temperature does the rest.

    Args:
        axes: those of the sample's features.
        sample: what is learned; its rows count the same.

    Returns:
        Weights [dim, classes] of the standardised features, and biases [classes].
    """
    counts = np.bincount(sample.labels)
    means = np.zeros((len(counts), len(axes.mean)))
    for part, standard in axes.standardise(sample.features):
        means += np.eye(len(counts))[sample.labels[part]].T @ standard
    means /= counts[:, None]
    size = np.sqrt(len(axes.mean))
    return means.T / size, -(means**2).sum(axis=1) / (2 * size)

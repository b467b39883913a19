"""Charts of evaluations and learning curves, as PNGs."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MAX_NAMES = 40
"""Classes whose names and counts fit into a confusion matrix."""
MARGIN = 0.02
"""Room beyond 0 and 1 for the markers of these."""
MAX_LETTERS, INCHES_PER_LETTER = 20, 0.08
"""A confusion matrix cuts off longer names, and has room for these beside it."""
PIXELS_PER_CSS_PIXEL = 2
"""Charts stay sharp on screens with twice the pixels."""


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG: labels down, predictions across, each row shaded by its shares."""
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_shorten(name).replace("$", r"\$") for name in classes[:MAX_NAMES]]  # no math text
    side = min(12.0, 2.5 + 0.4 * len(classes) + INCHES_PER_LETTER * max(map(len, names)))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(classes) <= MAX_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 - half shaded
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    return _to_png(figure)


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def draw_reliability(reliability: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Draw a reliability diagram as a PNG: accuracy over probability with 95 % intervals, above a histogram.

    Calibrated probabilities are on the diagonal (DeGroot & Fienberg 1983).
    """
    figure = Figure(figsize=(5, 6.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color="gray", linestyle=":")
    for when, color, marker in (("before", "tab:gray", "o"), ("after", "tab:blue", "s")):
        columns = {key: np.array([row[key] for row in reliability[when]]) for key in reliability[when][0]}
        share = columns["accuracy"]
        ends = np.abs(np.stack([share - columns["accuracy_low"], columns["accuracy_high"] - share]))
        above.errorbar(
            columns["probability"], share, ends, color=color, marker=marker, capsize=2, label=f"{when} scaling"
        )
        below.step(columns["probability"], columns["images"], where="mid", color=color)
    above.set(xlim=(-MARGIN, 1 + MARGIN), ylim=(-MARGIN, 1 + MARGIN), ylabel="accuracy")
    above.legend()
    below.set(xlabel="probability of the predicted class", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _to_png(figure)


def draw_learning(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Draw validation accuracy over the share of labels, a line per name, with 95 % intervals.

    Each point has ``share``, ``accuracy``, ``accuracy_low`` and ``accuracy_high``.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        columns = {key: np.array([point[key] for point in points]) for key in points[0]}
        share, accuracy = columns["share"], columns["accuracy"]
        ends = np.abs(np.stack([accuracy - columns["accuracy_low"], columns["accuracy_high"] - accuracy]))
        moved = share * (1 + 0.012 * number)  # intervals at the same share must not hide each other
        axes.errorbar(moved, accuracy, ends, marker="o", capsize=2, label=name.replace("$", r"\$"))
    shares = sorted({point["share"] for points in curves.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"{100 * share:.3g} %" for share in shares])
    axes.set(xlabel="share of the labels used for training", ylabel="validation accuracy")
    axes.legend()
    return _to_png(figure)


def _to_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100 * PIXELS_PER_CSS_PIXEL, metadata={"Software": None})
    return file.getvalue()

"""An evaluation as pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

MOST_NAMES = 40


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw counts as a PNG, true classes down and predicted ones across, each row shaded by its share."""
    counts = np.array(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 3 + 0.4 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= MOST_NAMES:
        names = [name.replace("$", r"\$") for name in classes]  # no formulas
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 - half shaded
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    return _to_png(figure)


def draw_reliability(reliability: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Draw accuracy over probability as a PNG, with 95 % intervals, and below it how many images are how sure.

    A reliability diagram (DeGroot & Fienberg 1983): calibrated probabilities lie on the diagonal.
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
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.legend()
    below.set(xlabel="probability of the likeliest class", ylabel="images")
    return _to_png(figure)


def draw_learning(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Draw validation accuracy over the share of the labels as a PNG, with 95 % intervals, a line a name.

    Each point has ``share``, ``accuracy``, ``accuracy_low`` and ``accuracy_high``.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        columns = {key: np.array([point[key] for point in points]) for key in points[0]}
        share, accuracy = columns["share"], columns["accuracy"]
        ends = np.abs(np.stack([accuracy - columns["accuracy_low"], columns["accuracy_high"] - accuracy]))
        moved = share * (1 + 0.012 * number)  # so that intervals at one share do not hide each other
        axes.errorbar(moved, accuracy, ends, marker="o", capsize=2, label=name.replace("$", r"\$"))
    shares = sorted({point["share"] for points in curves.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shares, [f"{100 * share:.3g} %" for share in shares])
    axes.set(xlabel="share of the labels trained on", ylabel="accuracy on validation")
    axes.legend()
    return _to_png(figure)


def _to_png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()

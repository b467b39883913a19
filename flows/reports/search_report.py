"""The report of a search, as JSON, as text and as a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.reports.output import build_table
from flows.reports.run_lines import describe_trained
from flows.reports.run_report import trained_to_json
from flows.settings import RunSettings
from tasks.train.search.halving import Contender, ContenderResult, Trial
from tasks.train.train import Trained

COLUMNS = ("cut", "kind", "labels", "accuracy, %", "loss", "s", "MB", "decided")
PLOT_FILE = "search.png"


@dataclass(frozen=True)
class SearchReport:
    """The results of a search, the settings of the winner, and its training.

    ``sizes`` are the sizes of each contender's features in bytes, before compression; ``plot`` is a PNG of the learning
    curves; ``computed`` is the number of features that the search added.
    """

    settings: RunSettings
    results: tuple[ContenderResult, ...]
    sizes: Mapping[Contender, int]
    advice: str
    plot: Path
    trained: Trained
    computed: int
    seconds: float


def search_to_json(report: SearchReport) -> dict[str, Any]:
    """Return the object that ``frostline train --cut auto --json`` prints."""
    embed, heads = report.settings.embed, report.settings.train.heads
    return {
        **trained_to_json(report.trained),
        "settings": {"embed": {"cut": embed.cut, "pooling": embed.pooling}, "train": {"heads": list(heads)}},
        "advice": report.advice,
        "table": [_to_row(result, report.sizes[result.contender]) for result in report.results],
        "plot": str(report.plot),
        "features": {"computed": report.computed},
        "seconds": round(report.seconds, 3),
    }


def describe_search(report: SearchReport) -> list[Any]:
    """Describe the results, the advice, the training, and the settings to copy."""
    tried = [(o.contender, o.trial, report.sizes[o.contender], o.verdict) for o in report.results if o.trial]
    rows = [_format_row(*each) for each in tried]
    return [
        *build_table(COLUMNS, rows, title="on validation images, with 95 % intervals"),
        *(f"skipped   {o.contender.kind} at {o.contender.cut} {o.verdict}" for o in report.results if not o.trial),
        f"advice    {report.advice}",
        f"search    {report.seconds:.1f} s · embedded {report.computed} · plot {report.plot}",
        *describe_trained(trained_to_json(report.trained)),
        "settings  write into frostline.toml:",
        *write_settings(report),
    ]


def write_settings(report: SearchReport) -> list[str]:
    """Return the lines of frostline.toml that train the winner again."""
    embed, heads = report.settings.embed, report.settings.train.heads
    names = ", ".join(f'"{kind}"' for kind in heads)
    return ["[embed]", f'cut = "{embed.cut}"', f'pooling = "{embed.pooling}"', "", "[train]", f"heads = [{names}]"]


def write_plot(results: Sequence[ContenderResult], folder: Path) -> Path:
    """Plot the learning curves of the contenders trained on the most labels; return the path of the PNG."""
    from tasks.train.report.plots import draw_learning

    trials = [result.trial for result in results if result.trial]
    most = max(trial.share for trial in trials)
    curves: dict[Contender, list[Trial]] = {trial.contender: [] for trial in trials if trial.share == most}
    for trial in sorted(trials, key=lambda trial: trial.share):
        if trial.contender in curves:
            curves[trial.contender].append(trial)
    named = {f"{kind} at {cut}": [_to_point(trial) for trial in curve] for (cut, kind), curve in curves.items()}
    path = folder / PLOT_FILE
    path.write_bytes(draw_learning(named))
    return path


def _to_point(trial: Trial) -> dict[str, float]:
    low, high = trial.interval
    return {"share": trial.share, "accuracy": trial.accuracy, "accuracy_low": low, "accuracy_high": high}


def _to_row(result: ContenderResult, size: int) -> dict[str, Any]:
    trial = result.trial
    measured = {"labels": trial.images, **_to_point(trial), "log_loss": trial.loss} if trial else {}
    names = ("labels", "share", "accuracy", "accuracy_low", "accuracy_high", "log_loss")
    return {
        "cut": result.contender.cut,
        "kind": result.contender.kind,
        **{name: measured.get(name) for name in names},
        "seconds": round(trial.seconds, 3) if trial else None,
        "bytes": size,
        "decided": result.verdict,
    }


def _format_row(contender: Contender, trial: Trial, size: int, verdict: str) -> list[str]:
    accuracy, low, high = (f"{100 * share:.1f}" for share in (trial.accuracy, *trial.interval))
    measured = f"{accuracy} ({low} to {high})"
    costs = (f"{trial.loss:.3f}", f"{trial.seconds:.1f}", f"{size / 1e6:.1f}")
    return [contender.cut, contender.kind, str(trial.images), measured, *costs, verdict]

"""What a search found, as one object, as text, as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.reports.output import build_table
from flows.reports.run_report import describe_trained, trained_to_json
from flows.settings import RunSettings
from tasks.train.search.halving import Contender, ContenderResult, Trial
from tasks.train.train import Trained

COLUMNS = ("cut", "kind", "labels", "accuracy, %", "loss", "s", "MB", "decided")
PICTURE = "search.png"


@dataclass(frozen=True)
class SearchReport:
    """What a search decided from, and on: the settings that train the winner, and its training.

    ``sizes`` are the bytes, before compression, of each contender's features; ``plot`` is a PNG of the learning curves;
    ``computed`` counts the features that the search added.
    """

    settings: RunSettings
    outcomes: tuple[ContenderResult, ...]
    sizes: Mapping[Contender, int]
    advice: str
    plot: Path
    trained: Trained
    computed: int
    seconds: float


def search_to_json(found: SearchReport) -> dict[str, Any]:
    """Give the object that ``frostline train --cut auto --json`` prints."""
    embed, heads = found.settings.embed, found.settings.train.heads
    return {
        **trained_to_json(found.trained),
        "settings": {"embed": {"cut": embed.cut, "pooling": embed.pooling}, "train": {"heads": list(heads)}},
        "advice": found.advice,
        "table": [_to_row(outcome, found.sizes[outcome.contender]) for outcome in found.outcomes],
        "plot": str(found.plot),
        "features": {"computed": found.computed},
        "seconds": round(found.seconds, 3),
    }


def describe_search(found: SearchReport) -> list[Any]:
    """Tell the table that a search decided from, the advice, the settings to write down, and the training."""
    tried = [(o.contender, o.trial, found.sizes[o.contender], o.verdict) for o in found.outcomes if o.trial]
    return [
        *build_table(COLUMNS, [_tell(*each) for each in tried], title="on validation images, with 95 % intervals"),
        *(f"skipped   {o.contender.kind} at {o.contender.cut} {o.verdict}" for o in found.outcomes if not o.trial),
        f"advice    {found.advice}",
        f"search    {found.seconds:.1f} s · embedded {found.computed} · plot {found.plot}",
        *describe_trained(found.trained),
        "settings  write into frostline.toml:",
        *write_settings(found),
    ]


def write_settings(found: SearchReport) -> list[str]:
    """Write the lines of frostline.toml with which the winner is found again."""
    embed, heads = found.settings.embed, found.settings.train.heads
    names = ", ".join(f'"{kind}"' for kind in heads)
    return ["[embed]", f'cut = "{embed.cut}"', f'pooling = "{embed.pooling}"', "", "[train]", f"heads = [{names}]"]


def write_picture(outcomes: Sequence[ContenderResult], folder: Path) -> Path:
    """Draw the learning curves of those that reached the most labels, as a PNG in a folder; gives its path."""
    from tasks.train.report.plots import draw_learning

    trials = [outcome.trial for outcome in outcomes if outcome.trial]
    most = max(trial.share for trial in trials)
    curves: dict[Contender, list[Trial]] = {trial.contender: [] for trial in trials if trial.share == most}
    for trial in sorted(trials, key=lambda trial: trial.share):
        if trial.contender in curves:
            curves[trial.contender].append(trial)
    named = {f"{kind} at {cut}": [_to_point(trial) for trial in curve] for (cut, kind), curve in curves.items()}
    path = folder / PICTURE
    path.write_bytes(draw_learning(named))
    return path


def _to_point(trial: Trial) -> dict[str, float]:
    low, high = trial.interval
    return {"share": trial.share, "accuracy": trial.accuracy, "accuracy_low": low, "accuracy_high": high}


def _to_row(outcome: ContenderResult, size: int) -> dict[str, Any]:
    trial = outcome.trial
    measured = {"labels": trial.images, **_to_point(trial), "log_loss": trial.loss} if trial else {}
    names = ("labels", "share", "accuracy", "accuracy_low", "accuracy_high", "log_loss")
    return {
        "cut": outcome.contender.cut,
        "kind": outcome.contender.kind,
        **{name: measured.get(name) for name in names},
        "seconds": round(trial.seconds, 3) if trial else None,
        "bytes": size,
        "decided": outcome.verdict,
    }


def _tell(contender: Contender, trial: Trial, size: int, verdict: str) -> list[str]:
    accuracy, low, high = (f"{100 * share:.1f}" for share in (trial.accuracy, *trial.interval))
    measured = f"{accuracy} ({low} to {high})"
    costs = (f"{trial.loss:.3f}", f"{trial.seconds:.1f}", f"{size / 1e6:.1f}")
    return [contender.cut, contender.kind, str(trial.images), measured, *costs, verdict]

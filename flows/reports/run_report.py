"""What a run did: as a JSON object, as an artifact in Markdown, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flows.embed import Embedded
from flows.reports.escape import escape_markdown
from flows.score import Scored
from storage.plural import pluralize
from storage.tables.scans import ScanCounts
from storage.tables.trainings import Training
from tasks.register.register import RegisteredVersion
from tasks.train.train import Trained


@dataclass(frozen=True)
class RunReport:
    """What a run saw, computed, reused, trained and promoted."""

    name: str
    snapshot: int
    conflicts: int
    seen: ScanCounts
    embedded: Embedded
    trained: Trained
    registered: RegisteredVersion
    scored: Scored | None
    seconds: dict[str, float]

    @property
    def backbone_calls(self) -> int:
        """How many images went through a backbone, under the run's recipes and the champion's."""
        return self.embedded.throughput.images + (self.scored.images if self.scored else 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the training and the champion's predictions warn about."""
        return (*self.trained.warnings, *(self.scored.warnings if self.scored else ()))

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``frostline run --json`` prints."""
        embedded, registered = self.embedded, self.registered
        return {
            "state": "completed",
            "name": self.name,
            "snapshot": self.snapshot,
            "recipe": embedded.recipe_id,
            **seen_to_json(self.seen),
            "conflicts": self.conflicts,
            "features": {"computed": embedded.computed, "reused": embedded.reused, "failed": embedded.failed},
            "backbone_calls": self.backbone_calls,
            "pace": embedded.throughput.to_json(),
            "trained": self.trained.new,
            "training": self.trained.training.training_id,
            "chosen": self.trained.training.chosen,
            "metrics": self.trained.training.metrics,
            "model": {
                "name": registered.name,
                "version": registered.version,
                "alias": registered.alias,
                "new": registered.new,
                "snapshot": self.trained.training.snapshot,
                "gate": registered.reason,
                "url": model_url(registered),
            },
            "champion": self.scored.to_json() if self.scored else None,
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def seen_to_json(seen: ScanCounts) -> dict[str, Any]:
    """Return the parts of ``frostline run --json`` about the source: its images and its files."""
    return {
        "images": {"seen": seen.seen, "new": seen.new, "unchanged": seen.seen - seen.new, "gone": seen.gone},
        "files": {"seen": seen.files, "opened": seen.opened, "ignored": seen.ignored, "failed": seen.failed},
    }


def trained_to_json(trained: Trained) -> dict[str, Any]:
    """Return the object that ``frostline train --json`` prints."""
    training = trained.training
    return {
        "training": training.training_id,
        "trained": trained.new,
        "label_set": training.label_set,
        "recipe": training.recipe_id,
        "snapshot": training.snapshot,
        "chosen": training.chosen,
        "metrics": training.metrics,
        "warnings": list(trained.warnings),
    }


def describe_chosen(training: Training) -> str:
    """Describe in one line what was chosen on validation: the kind of head, and its hyperparameters."""
    return f"chosen    {' · '.join(f'{name} {value}' for name, value in training.chosen.items())}"


def describe_trained(trained: Trained) -> list[str]:
    """Describe a training in a few lines."""
    training = trained.training
    return [
        describe_head(trained),
        describe_chosen(training),
        f"lake      snapshot {training.snapshot} · recipe {training.recipe_id[:12]}",
        *(f"warning   {warning}" for warning in trained.warnings),
    ]


def describe_head(trained: Trained) -> str:
    """Describe how good a head is in one line."""
    metrics = trained.training.metrics
    action = "trained" if trained.new else "nothing changed, nothing trained"
    if "mean_average_precision" in metrics:
        others = f"micro F1 {metrics['micro_f1']:.4f} · all labels right {metrics['accuracy']:.4f}"
        return f"head      {action} · test {_describe_metric(metrics, 'mean_average_precision', 'mAP')} · {others}"
    others = f"balanced {metrics['balanced_accuracy']:.4f} · log loss {metrics['log_loss']:.4f}"
    refused = f" · neither {metrics['refused']:.4f}" if "refused" in metrics else ""
    return f"head      {action} · test {describe_accuracy(metrics)} · {others}{refused}"


def describe_accuracy(metrics: dict[str, float]) -> str:
    """Describe the accuracy with its 95 % interval, which heads of earlier releases lack."""
    return _describe_metric(metrics, "accuracy", "accuracy")


def _describe_metric(metrics: dict[str, float], name: str, title: str) -> str:
    text = f"{title} {metrics[name]:.4f}"
    if f"{name}_low" not in metrics:
        return text
    return f"{text} ({metrics[f'{name}_low']:.4f} to {metrics[f'{name}_high']:.4f})"


def model_url(registered: RegisteredVersion) -> str | None:
    """Return the link to the version in MLflow's UI; None if MLflow is not a server."""
    if not registered.tracking_uri.startswith("http"):
        return None
    return f"{registered.tracking_uri.rstrip('/')}/#/models/{quote(registered.name)}/versions/{registered.version}"


def describe_seen(seen: ScanCounts) -> str:
    """Describe in one line which images a run saw."""
    return f"images    {seen.seen} seen · {seen.new} new · {seen.seen - seen.new} unchanged · {seen.gone} gone"


def describe_run(report: RunReport) -> list[str]:
    """Describe a run in a few lines."""
    embedded, registered = report.embedded, report.registered
    version = f"{registered.name} version {registered.version}" + (f" · {registered.alias}" if registered.alias else "")
    lines = [
        describe_seen(report.seen),
        f"features  embedded {embedded.computed} · reused {embedded.reused} · failed {embedded.failed}",
        describe_head(report.trained),
        describe_chosen(report.trained.training),
        f"model     {version} · {registered.reason}",
        f"lake      snapshot {report.snapshot} · recipe {embedded.recipe_id[:12]} · {report.seconds['total']:.1f} s",
    ]
    if embedded.throughput.images:
        lines.insert(2, f"pace      {embedded.throughput}")
    if report.scored and report.scored.images:
        lines.append(f"champion  {report.scored}")
    if report.conflicts:
        images = pluralize(report.conflicts, "image")
        lines.append(f"conflicts {images} in several classes, left out: see frostline sql 'from conflicts'")
    if embedded.failed:
        lines.append(f"failures  {embedded.failed}: see frostline sql 'from failures'")
    return lines + [f"warning   {warning}" for warning in report.warnings]


def to_markdown(report: RunReport) -> str:
    """Write the artifact of a run: its lines as a table."""
    registered = report.registered
    url = model_url(registered)
    title = escape_markdown(f"{registered.name} version {registered.version}")
    link = f"[{title}]({url})" if url else escape_markdown(registered.tracking_uri)
    table = lines_to_markdown(report.name, [*describe_run(report), describe_seconds(report.seconds)])
    return f"{table}| MLflow | {link} |\n"


def describe_seconds(seconds: Mapping[str, float]) -> str:
    """Describe in one line how long each step took."""
    return f"seconds   {' · '.join(f'{step} {taken:.1f} s' for step, taken in seconds.items())}"


def lines_to_markdown(title: str, lines: Sequence[str]) -> str:
    """Write lines, each with a word of up to nine letters before it, as a table under a title."""
    cells = [(line[:9].strip(), line[10:]) for line in lines]
    rows = "".join(f"| {escape_markdown(word)} | {escape_markdown(text)} |\n" for word, text in cells)
    return f"# {escape_markdown(title)}\n\n| | |\n|---|---|\n{rows}"

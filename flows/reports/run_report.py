"""What a run did: as a JSON object, and as an artifact in Markdown."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flows.embed import Embedded
from flows.reports.escape import escape_markdown
from flows.reports.run_lines import describe_run, describe_seconds, lines_to_markdown
from flows.score import Scored
from storage.tables.scans import ScanCounts
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


def model_url(registered: RegisteredVersion) -> str | None:
    """Return the link to the version in MLflow's UI; None if MLflow is not a server."""
    if not registered.tracking_uri.startswith("http"):
        return None
    return f"{registered.tracking_uri.rstrip('/')}/#/models/{quote(registered.name)}/versions/{registered.version}"


def to_markdown(report: RunReport) -> str:
    """Write the artifact of a run: its lines as a table."""
    registered = report.registered
    url = model_url(registered)
    title = escape_markdown(f"{registered.name} version {registered.version}")
    link = f"[{title}]({url})" if url else escape_markdown(registered.tracking_uri)
    table = lines_to_markdown(report.name, [*describe_run(report.to_json()), describe_seconds(report.seconds)])
    return f"{table}| MLflow | {link} |\n"

"""The report of a run that fails, is cancelled or crashes: what it had done until then."""

from dataclasses import dataclass
from typing import Any, Literal

from flows.reports.draft import RunDraft
from flows.reports.run_lines import describe_chosen, describe_head, describe_seconds, describe_seen
from flows.reports.run_report import seen_to_json, trained_to_json
from storage.errors import is_interrupt
from storage.plural import pluralize

State = Literal["running", "failed", "cancelled", "crashed"]


@dataclass(frozen=True)
class UnfinishedReport:
    """The report of a run that has not completed. ``reason`` is its error's message, in one line."""

    draft: RunDraft
    state: State
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that the run leaves in the home: the keys of ``frostline run --json``, as far as it got."""
        draft = self.draft
        return {
            "state": self.state,
            "step": draft.step,
            "error": self.reason or None,
            "name": draft.name,
            **(seen_to_json(draft.seen) if draft.seen else {}),
            "features": {"computed": draft.computed},
            **(trained_to_json(draft.trained) if draft.trained else {}),
            "seconds": draft.seconds,
        }

    @property
    def line(self) -> str:
        """What happened and what was done until then, in one line."""
        reason = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"{self.state} in step {self.draft.step}{reason}. Until then: {', '.join(self._list_done())}"

    def describe(self) -> list[str]:
        """Describe the run in a few lines."""
        draft = self.draft
        trained = trained_to_json(draft.trained) if draft.trained else None
        return [
            f"{self.state:9} in step {draft.step}",
            *([f"error     {self.reason}"] if self.reason else []),
            *([describe_seen(seen_to_json(draft.seen))] if draft.seen else []),
            f"features  embedded {draft.computed}",
            *([describe_head(trained), describe_chosen(trained)] if trained else []),
            describe_seconds(draft.seconds),
        ]

    def _list_done(self) -> list[str]:
        draft = self.draft
        done = [f"{pluralize(draft.seen.seen, 'image')} read"] if draft.seen else []
        done += [f"{pluralize(draft.computed, 'feature')} committed"] if draft.computed else []
        done += ["a head trained"] if draft.trained and draft.trained.new else []
        return done or ["nothing was written"]


def classify_error(error: BaseException) -> State:
    """Classify how a run ended: a person stopped it, an error did, or its process is ending."""
    if is_interrupt(error):
        return "cancelled"
    return "failed" if isinstance(error, Exception) else "crashed"


def explain_error(error: BaseException) -> str:
    """Explain an error in one line; what has no message is explained by its kind."""
    if is_interrupt(error):
        return "interrupted from the keyboard"
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")

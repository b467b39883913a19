"""An erasure, from the names on the command line to the report: find, survey, confirm, erase."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.reports.escape import escape_terminal
from storage.care.erase import (
    AffectedModel,
    Erasure,
    ErasureRequest,
    count_open,
    erase,
    find_condition,
    find_images,
    find_source,
    finish,
    survey,
)
from storage.errors import EraseError
from storage.lake.attach import read_existing_lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.plural import pluralize

RUN_AGAIN = "Run `frostline erase` again without arguments, when they are done; `frostline maintain` finishes it, too"


@dataclass(frozen=True)
class ErasureResult:
    """What was or would be erased.

    Attributes:
        survey: What goes; None if no images were named.
        finished: How many interrupted erasures were finished, or are left to finish.
        left: How many runs, and files of runs, may still hold erased images: the erasure is not finished.
        erased: Whether it was erased.
    """

    survey: Erasure | None
    finished: int
    left: int
    erased: bool

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``frostline erase --json`` prints."""
        counts = {"finished": self.finished, "left": self.left, "erased": self.erased}
        return {**(self.survey.to_json() if self.survey else {}), **counts}


def erase_images(
    home: Home, images: Sequence[str], source: SourceName | None, where: str | None, *, dry_run: bool, yes: bool
) -> ErasureResult:
    """Erase the named images, after showing what goes and asking; finish interrupted erasures first.

    Raises:
        EraseError: if it is not clear what to erase, or nobody confirms.
    """
    with read_existing_lake(home) as lake:
        unfinished = count_open(lake)
    if unfinished and not dry_run:
        left = finish(home, datetime.now(UTC))
        if not (images or source or where):
            return ErasureResult(None, unfinished, left, erased=False)
    request = _make_request(home, images, source, where)
    surveyed = survey(home, request)
    if dry_run:
        return ErasureResult(surveyed, unfinished, 0, erased=False)
    _confirm(surveyed, yes=yes)
    taken, left = erase(home, request, datetime.now(UTC))
    return ErasureResult(taken, unfinished, left, erased=True)


def describe_erasure(result: ErasureResult) -> list[str]:
    """Describe in lines what was or would be erased."""
    lines = []
    if result.finished and (result.erased or not result.survey):
        lines += [f"finished {pluralize(result.finished, 'interrupted erasure')}"]
    if result.survey:
        lines += _describe(result.survey, erased=result.erased)
    if result.left:
        runs = pluralize(result.left, "run")
        lines += [f"Not finished: {runs} that began before may still hold erased images. {RUN_AGAIN}"]
    return lines


def _make_request(home: Home, images: Sequence[str], source: SourceName | None, where: str | None) -> ErasureRequest:
    named = sum(map(bool, (images, source, where)))
    if named != 1:
        rule = "must name images, a source or a condition, and only one of them"
        rule += "" if named else "; no interrupted erasure is left to finish"
        raise EraseError("erase", rule, "See `frostline erase --help`")
    with read_existing_lake(home) as lake:
        if images:
            return find_images(lake, images)
        return find_source(lake, source) if source else find_condition(lake, where or "")


def _confirm(surveyed: Erasure, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EraseError(
            "erase", "must be confirmed, and stdin is not a terminal", "Check with --dry-run, then add --yes"
        )
    print("\n".join(map(escape_terminal, _describe(surveyed, erased=False))), file=sys.stderr)  # noqa: T201 - the question
    print("This cannot be undone. Type yes to erase: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() != "yes":
        raise EraseError("erase", "was not confirmed, nothing was erased", "Type yes, or add --yes")


def _describe(surveyed: Erasure, *, erased: bool) -> list[str]:
    rows = ", ".join(f"{table} {count}" for table, count in surveyed.rows.items() if count) or "none"
    lines = [
        f"{'Erased' if erased else 'Would erase'} {pluralize(surveyed.images, 'image')}",
        f"  rows       {rows}",
        f"  snapshots  {surveyed.snapshots}: every one so far; no earlier state of the lake can be read afterwards",
        f"  files      up to {surveyed.files}, rewritten without them",
    ]
    if surveyed.tags:
        lines += [f"  tags       {', '.join(surveyed.tags)}: deleted with the snapshots that they name"]
    for model in surveyed.models:
        lines += _describe_model(model)
    for source, count in surveyed.remaining_files.items():
        lines += [
            f"  source     {pluralize(count, 'file')} in {source}: delete them, or the next run reads them in again"
        ]
    return lines


def _describe_model(model: AffectedModel) -> Iterator[str]:
    name = f"{model.name} version {model.version}" if model.version is not None else f"{model.name} (not registered)"
    alias = f", {model.alias}" if model.alias else ""
    learned = f"learned from {pluralize(model.images, 'erased image')}"
    yield f"  model      {name}{alias}, {learned}. Train again: {model.retrain}"
    if model.example:
        yield f"             MLflow run {model.run_id} may hold one in its input_example.json, its evaluation.html or"
        yield "             its head: delete that version and that run"

"""From what an operator names to what went: look, tell, ask, erase."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from storage.care.erase import (
    Erasure,
    Model,
    Request,
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

AGAIN = "Run `frostline erase` again in an hour, without arguments: it goes on by itself"


@dataclass(frozen=True)
class ErasureResult:
    """What went, or would go, None where nothing was named; whether it was ``erased``.

    ``finished`` counts the erasures that broke off before, ``left`` the files that could not go yet.
    """

    found: Erasure | None
    finished: int
    left: int
    erased: bool

    def to_json(self) -> dict[str, Any]:
        """Give the object that ``frostline erase --json`` prints."""
        counts = {"finished": self.finished, "left": self.left, "erased": self.erased}
        return {**(asdict(self.found) if self.found else {}), **counts}


def erase_images(
    home: Home, images: Sequence[str], source: SourceName | None, where: str | None, *, dry_run: bool, yes: bool
) -> ErasureResult:
    """Erase what is named, after telling what that would be and asking; finish what broke off before.

    Raises:
        EraseError: where it is not clear what shall go, or nobody confirms it.
    """
    with read_existing_lake(home) as lake:
        unfinished = count_open(lake)
    if unfinished and not dry_run:
        left = finish(home, datetime.now(UTC))
        if not (images or source or where):
            return ErasureResult(None, unfinished, left, erased=False)
    request = _find(home, images, source, where)
    found = survey(home, request)
    if dry_run:
        return ErasureResult(found, unfinished, 0, erased=False)
    _confirm(found, yes=yes)
    taken, left = erase(home, request, datetime.now(UTC))
    return ErasureResult(taken, unfinished, left, erased=True)


def describe_erasure(outcome: ErasureResult) -> list[str]:
    """Write what went, or would go, in lines for people."""
    lines = []
    if outcome.finished and (outcome.erased or not outcome.found):
        lines += [f"{outcome.finished} erasures that broke off before were finished"]
    if outcome.found:
        lines += _describe(outcome.found, erased=outcome.erased)
    if outcome.left:
        lines += [f"{outcome.left} files of runs that were killed or are at work may hold them still. {AGAIN}"]
    return lines


def _find(home: Home, images: Sequence[str], source: SourceName | None, where: str | None) -> Request:
    named = sum(map(bool, (images, source, where)))
    if named != 1:
        rule = "must name images, or a source, or a condition, and only one of these"
        rule += "" if named else "; none that broke off is left to finish"
        raise EraseError("erase", rule, "See `frostline erase --help`")
    with read_existing_lake(home) as lake:
        if images:
            return find_images(lake, images)
        return find_source(lake, source) if source else find_condition(lake, where or "")


def _confirm(found: Erasure, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EraseError("erase", "must be confirmed, and this is no terminal", "Look with --dry-run, then add --yes")
    print("\n".join(_describe(found, erased=False)), file=sys.stderr)  # noqa: T201 - this is the question
    print("This cannot be undone. Write yes to erase: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() != "yes":
        raise EraseError("erase", "was not confirmed, nothing was erased", "Write yes, or add --yes")


def _describe(found: Erasure, *, erased: bool) -> list[str]:
    did = "Erased" if erased else "Would erase"
    rows = ", ".join(f"{count} {table}" for table, count in found.rows.items() if count) or "none"
    lines = [
        f"{did} {found.images} images",
        f"  rows       {rows}",
        f"  snapshots  {found.snapshots}: every one up to now; no earlier state can be read after it",
        f"  files      up to {found.files}, written anew without them",
    ]
    if found.tags:
        lines += [f"  tags       {', '.join(found.tags)}: what they name is gone, so they go, too"]
    for model in found.models:
        lines += _describe_model(model)
    for source, count in found.lying.items():
        lines += [f"  {count} files still lie in source {source}: the next run would take them in again. Remove them"]
    return lines


def _describe_model(model: Model) -> list[str]:
    name = f"{model.name} version {model.version}" if model.version is not None else f"{model.name} (not registered)"
    alias = f", {model.alias}" if model.alias else ""
    lines = [f"  model      {name}{alias}, learned from {model.images} of them. Train again: {model.retrain}"]
    if model.example:
        lines += [
            f"             MLflow run {model.run_id} may hold one in its model's input_example.json or knn head, or in",
            "             its evaluation.html, and keeps it until you delete that version and run",
        ]
    return lines

"""A review as files: a table in which a person writes decisions, and a contact sheet to look at meanwhile."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path

from storage.errors import ReviewError
from tasks.train.report.page import frame
from tasks.train.report.thumbnails import show

SHOWN = 200
"""Images of each problem on the contact sheet; the table has all."""
TITLES = {
    "label": "Labels that are likely wrong",
    "duplicate": "Near-duplicates of another class",
    "outlier": "Unlike all others",
    "conflict": "Several classes",
}


@dataclass(frozen=True)
class Entry:
    """A row of the table. ``file`` and ``other`` say where the image and its near-duplicate lie.

    ``decision`` is a person's: the class that the image has, its own or another.
    """

    problem: str
    image_id: str
    file: str
    label: str
    suggestion: str
    score: str
    other: str
    decision: str = ""


COLUMNS = tuple(field.name for field in fields(Entry))


def write_table(entries: Sequence[Entry], file: Path) -> None:
    """Write the table as CSV, unless decisions stand in the one that is there.

    Raises:
        ReviewError: where they do.
    """
    if file.exists() and any(entry.decision for entry in read_table(file)):
        raise ReviewError(
            f"table {file}", "has decisions, which would be lost", "Take them back with --apply, then delete it"
        )
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)


def read_table(file: Path) -> list[Entry]:
    """Read the table, as a person left it.

    Raises:
        ReviewError: where it is no such table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = {"image_id", "decision"} - set(rows.fieldnames or ())
            found = [Entry(**{name: (row.get(name) or "").strip() for name in COLUMNS}) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReviewError(f"table {file}", f"cannot be read ({error})", "Name what `frostline review` wrote") from error
    if missing:
        raise ReviewError(
            f"table {file}", f"has no column {' and no column '.join(sorted(missing))}", "Keep its first line"
        )
    return found


def write_sheet(name: str, entries: Sequence[Entry], file: Path) -> None:
    """Write the contact sheet: one page of HTML that needs no other file."""
    body = [f"<h1>{escape(name)}: review</h1>"]
    for problem, title in TITLES.items():
        some = [entry for entry in entries if entry.problem == problem]
        if some:
            more = f", {SHOWN} shown" if len(some) > SHOWN else ""
            body += [f"<h2>{title}</h2><p>{len(some)}{more}.</p>", _lay_out(some[:SHOWN])]
    file.write_text(frame(f"{name}: review", body), encoding="utf-8")


def _lay_out(entries: Sequence[Entry]) -> str:
    return f'<div class="gallery">{"".join(map(_show, entries))}</div>'


def _show(entry: Entry) -> str:
    words = f"{entry.label}, perhaps {entry.suggestion}" if entry.suggestion else entry.label
    other = show(entry.other, None) if entry.other else ""
    return (
        f"<figure>{show(entry.file, entry.image_id)}{other}<figcaption>{escape(words)} {escape(entry.score)}"
        f"<br><small>{escape(entry.file or entry.image_id)}</small></figcaption></figure>"
    )

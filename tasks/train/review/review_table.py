"""The review table: a CSV file in which a person writes decisions."""

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from storage.errors import ReviewError


@dataclass(frozen=True)
class ReviewRow:
    """A row of the table; ``file`` and ``other`` are the paths of the image and of its near-duplicate.

    ``decision`` is for a person to fill in: the image's class, the one that it has or another.
    """

    problem: str
    image_id: str
    file: str
    label: str
    suggestion: str
    score: str
    other: str
    decision: str = ""


COLUMNS = tuple(field.name for field in fields(ReviewRow))
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]|'")
"""What a spreadsheet takes for a formula or a command, and the apostrophe that says it is text."""


def quote_cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula: names of files come from anybody."""
    return f"'{text}" if _FORMULA.match(text) else text


def unquote_cell(text: str) -> str:
    """Undo :func:`quote_cell`; a spreadsheet may have removed the apostrophe already."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def write_table(rows: Sequence[ReviewRow], file: Path) -> None:
    """Write the table as CSV.

    Raises:
        ReviewError: if the file exists and has decisions, which would be lost.
    """
    if file.exists() and any(row.decision for row in read_table(file)):
        raise ReviewError(
            f"table {file}", "has decisions, which would be lost", "Apply them with --apply, then delete the file"
        )
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows({name: quote_cell(text) for name, text in asdict(row).items()} for row in rows)


def read_table(file: Path) -> list[ReviewRow]:
    """Read the table as a person left it: spreadsheets may have added a byte order mark, and other columns.

    Raises:
        ReviewError: if the file cannot be read or is no review table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            records = csv.DictReader(lines)
            missing = {"image_id", "decision"} - set(records.fieldnames or ())
            rows = [
                ReviewRow(**{name: unquote_cell((record.get(name) or "").strip()) for name in COLUMNS})
                for record in records
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "Name the table that `frostline review` wrote"
        raise ReviewError(f"table {file}", f"cannot be read ({error})", remedy) from error
    if missing:
        raise ReviewError(
            f"table {file}", f"has no column {' and no column '.join(sorted(missing))}", "Keep its first line"
        )
    return rows

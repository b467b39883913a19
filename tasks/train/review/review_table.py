"""The review table: a CSV file in which a person writes decisions."""

import csv
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
        writer.writerows(asdict(row) for row in rows)


def read_table(file: Path) -> list[ReviewRow]:
    """Read the table as a person left it: spreadsheets may have added a byte order mark, and other columns.

    Raises:
        ReviewError: if the file cannot be read or is no review table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            records = csv.DictReader(lines)
            missing = {"image_id", "decision"} - set(records.fieldnames or ())
            rows = [ReviewRow(**{name: (record.get(name) or "").strip() for name in COLUMNS}) for record in records]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "Name the table that `frostline review` wrote"
        raise ReviewError(f"table {file}", f"cannot be read ({error})", remedy) from error
    if missing:
        raise ReviewError(
            f"table {file}", f"has no column {' and no column '.join(sorted(missing))}", "Keep its first line"
        )
    return rows

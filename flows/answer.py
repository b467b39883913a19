"""How a command answers: one JSON object, or lines and tables for people."""

import json as json_text
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command answers."""

    json: bool = False
    """Print one JSON object on stdout; everything else goes to stderr."""
    config: Path | None = None
    """A file of settings; by default frostline.toml where there is one."""
    debug: bool = False
    """Show tracebacks and Prefect's log."""


def answer(out: Output, value: dict[str, Any], tell: Callable[[], Sequence[Any]]) -> None:
    """Print the value as JSON where that is asked for, else what ``tell`` gives: lines and tables."""
    if out.json:
        print(json_text.dumps(value, default=str, ensure_ascii=False))  # noqa: T201 - this is the answer
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in tell():
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> list[Any]:
    """Draw rows as a table."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return [drawn]


def tables(found: dict[str, Any]) -> list[Any]:
    """Draw each list of rows as a table, under the single figures."""
    lines: list[Any] = [f"{name:9} {value}" for name, value in found.items() if not isinstance(value, list)]
    for name, rows in found.items():
        if isinstance(rows, list) and rows:
            lines += table(list(rows[0]), [list(row.values()) for row in rows], title=name)
    return lines

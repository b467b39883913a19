"""How a command answers: one JSON object, or lines and tables for people."""

import contextlib
import json as json_text
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from storage.errors import OutputError

WIDE = 4096
"""Columns of a table that no terminal shows: what comes behind a pipe finds each row in one line."""


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
    if sys.stdout is None:  # who closed it wants no answer
        return
    with _explain():
        if out.json:
            print(json_text.dumps(_to_json(value), default=str, ensure_ascii=False, allow_nan=False))  # noqa: T201
        else:
            _print(tell())
        sys.stdout.flush()


def _print(lines: Sequence[Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    for line in lines:
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)


def _to_json(value: Any) -> Any:  # noqa: ANN401 - whatever a cell holds
    """Give NaN and the infinities, for which JSON has no word, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _to_json(part) for name, part in value.items()}
    return [_to_json(part) for part in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _explain() -> Iterator[None]:
    """End quietly where the reader has seen enough, as `head` has.

    Raises:
        OutputError: where what stdout leads to does not take the answer.
    """
    try:
        yield
    except BrokenPipeError:
        _mute()
        sys.exit(1)
    except OSError as error:
        _mute()
        raise OutputError(
            "stdout", f"cannot be written: {error.strerror}", "Make room, or send it elsewhere"
        ) from error


def _mute() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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

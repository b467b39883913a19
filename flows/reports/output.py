"""How a command prints its result: as one JSON object, or as lines and tables."""

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

from flows.reports.escape import escape_json, escape_terminal
from storage.errors import OutputError

PIPE_WIDTH = 4096
"""Columns of a table in a pipe: wider than any terminal, so that each row stays on one line."""


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """What every command takes beside its own arguments."""

    json: bool = False
    """Print one JSON object on stdout; everything else goes to stderr."""
    config: Path | None = None
    """A file with settings; by default frostline.toml, if it exists."""
    debug: bool = False
    """Show tracebacks and Prefect's log."""


def print_result(options: OutputOptions, value: dict[str, Any], render: Callable[[], Sequence[Any]]) -> None:
    """Print the value as JSON if that is requested, otherwise the lines and tables that ``render`` returns.

    Raises:
        OutputError: if stdout cannot be written.
    """
    if sys.stdout is None:  # closed by the caller, who wants no output
        return
    with _handle_write_errors():
        if options.json:
            text = json_text.dumps(_to_json(value), default=str, ensure_ascii=False, allow_nan=False)
            print(escape_json(text))  # noqa: T201
        else:
            _print_lines(render())
        sys.stdout.flush()


def build_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> list[Any]:
    """Build a table of rows, as a list with one item that ``print_result`` prints."""
    from rich.table import Table
    from rich.text import Text

    def show(cell: object) -> Text:
        return Text("" if cell is None else escape_terminal(str(cell)))

    table = Table(title=title and show(title), title_justify="left")
    for column in columns:
        table.add_column(show(column), overflow="fold")
    for row in rows:
        table.add_row(*map(show, row))
    return [table]


def build_tables(value: dict[str, Any]) -> list[Any]:
    """Build a line per single value, then a table per list of rows that is not empty."""
    lines: list[Any] = [f"{name:9} {part}" for name, part in value.items() if not isinstance(part, list)]
    for name, rows in value.items():
        if isinstance(rows, list) and rows:
            lines += build_table(list(rows[0]), [list(row.values()) for row in rows], title=name)
    return lines


def _print_lines(lines: Sequence[Any]) -> None:
    for line in lines:
        print(escape_terminal(line)) if isinstance(line, str) else _print_table(line)  # noqa: T201


def _print_table(table: object) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _to_json(value: Any) -> Any:  # noqa: ANN401 - a cell holds anything
    """Replace NaN and the infinities, which JSON lacks, by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _to_json(part) for name, part in value.items()}
    return [_to_json(part) for part in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def _handle_write_errors() -> Iterator[None]:
    """Exit quietly if the reader of a pipe is gone, as `head` is after ten lines.

    Raises:
        OutputError: if stdout cannot be written for another reason.
    """
    try:
        yield
    except BrokenPipeError:
        _discard_stdout()
        sys.exit(1)
    except OSError as error:
        _discard_stdout()
        raise OutputError(
            "stdout", f"cannot be written: {error.strerror}", "Free some space, or redirect the output"
        ) from error


def _discard_stdout() -> None:
    """Send what is still buffered to the null device, so that Python does not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

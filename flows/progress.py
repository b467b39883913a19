"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator

from storage.plural import pluralize
from storage.progress import Advance

SECONDS_PER_LINE = 10.0


@contextlib.contextmanager
def show_progress(what: str, total: int, unit: str = "image") -> Iterator[Advance]:
    """Show on stderr how many are done, how many per second, and how long the rest takes.

    Args:
        what: What is being done, such as "embed".
        total: How many there are; with none, nothing is shown.
        unit: What is counted, in the singular.
    """
    if not total:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _show_bar(what, total, unit) as advance:
            yield advance
    else:
        yield _LineProgress(what, total, unit).advance


@contextlib.contextmanager
def _show_bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(done: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=done, rate=f"{speed:.0f} {unit}s/s" if speed else "")

        yield advance


class _LineProgress:
    """A line every ten seconds and one at the end; without a terminal, Rich prints only the end."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.started = self.last_line = time.monotonic()

    def advance(self, done: int) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.last_line < SECONDS_PER_LINE and self.done < self.total:
            return
        self.last_line = now
        rate = self.done / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate
        share = f"{self.done:,}/{pluralize(self.total, self.unit)}"
        line = f"{self.what} {share}, {rate:.0f} {self.unit}s/s, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line's progress

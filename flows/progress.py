"""Progress on the terminal: a bar where somebody watches, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator

from storage.progress import Advance

SECONDS_A_LINE = 10.0


@contextlib.contextmanager
def show_progress(what: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Show how many images are done, or what else is counted, how many a second, how long the rest takes; on stderr."""
    if not total:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(what, total, unit) as advance:
            yield advance
    else:
        yield _Lines(what, total, unit).advance


@contextlib.contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(done: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=done, rate=f"{speed:.0f} {unit}/s" if speed else "")

        yield advance


class _Lines:
    """A line every ten seconds, and one at the end."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.began = self.said = time.monotonic()

    def advance(self, done: int) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.said < SECONDS_A_LINE and self.done < self.total:
            return
        self.said = now
        rate = self.done / max(now - self.began, 1e-9)
        left = (self.total - self.done) / rate
        line = f"{self.what} {self.done}/{self.total} {self.unit}, {rate:.0f} {self.unit}/s, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal

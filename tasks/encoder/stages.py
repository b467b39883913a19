"""Stages that work beside each other with bounded queues between them, and a meter of which one the rest waits for."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

STAGES = ("read", "decode", "backbone", "write")


@dataclass
class Meter:
    """How long the coordinator waited for each stage, and what the readers' own seconds and bytes were.

    Reading and decoding happen in the same threads: the wait for both is shared out as their own seconds are.
    """

    waited: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("decode", "backbone", "write"), 0.0))
    reading: float = 0.0
    decoding: float = 0.0
    bytes: int = 0

    @contextlib.contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """Charge a stage with the time that a block waits for it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waited[stage] += time.perf_counter() - began

    def count(self, reading: float, decoding: float, size: int) -> None:
        """Add what a reader has done: seconds, seconds, bytes."""
        self.reading += reading
        self.decoding += decoding
        self.bytes += size

    def share_out(self) -> dict[str, float]:
        """Give the seconds that each of ``STAGES`` was the one that the rest waited for."""
        reading = self.waited["decode"] * self.reading / max(self.reading + self.decoding, 1e-9)
        return {**self.waited, "read": reading, "decode": self.waited["decode"] - reading}


def map_ahead(
    pool: Executor, work: Callable[[Given], Made], given: Iterable[Given], ahead: int, meter: Meter, stage: str
) -> Iterator[Made]:
    """Map in order over a pool, with a bounded number of results begun and not yet taken.

    Args:
        pool: Where the work is done.
        work: What is done.
        given: What it is done to; pulled as places become free.
        ahead: How many may be begun beyond the one that is taken next.
        meter: Is charged with the waits.
        stage: Their name there.
    """
    waiting: deque[Future[Made]] = deque()
    try:
        for each in given:
            waiting.append(pool.submit(work, each))
            if len(waiting) > ahead:
                yield _take(waiting, meter, stage)
        while waiting:
            yield _take(waiting, meter, stage)
    finally:
        for future in waiting:
            future.cancel()


def _take(waiting: deque[Future[Made]], meter: Meter, stage: str) -> Made:
    with meter.waiting(stage):
        return waiting.popleft().result()


def group(items: Iterable[Given], size: int) -> Iterator[list[Given]]:
    """Gather items into lists of one size; the last may be shorter."""
    gathered: list[Given] = []
    for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered

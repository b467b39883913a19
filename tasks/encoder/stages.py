"""Concurrent stages with bounded queues between them, and a meter of which stage the others wait for."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STAGES = ("read", "decode", "backbone", "write")


@dataclass
class Meter:
    """Seconds that the coordinator waited for each stage, and the seconds and bytes that readers report.

    The same threads read and decode: the wait for both is divided in proportion to the seconds that each took.
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
        """Add a reader's seconds of reading and of decoding, and the bytes that it read."""
        self.reading += reading
        self.decoding += decoding
        self.bytes += size

    def divide_waits(self) -> dict[str, float]:
        """Return the seconds that the coordinator waited for each of ``STAGES``."""
        reading = self.waited["decode"] * self.reading / max(self.reading + self.decoding, 1e-9)
        return {**self.waited, "read": reading, "decode": self.waited["decode"] - reading}


def map_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int, meter: Meter, stage: str
) -> Iterator[Result]:
    """Map over a pool in order, with a bounded number of pending results.

    Args:
        pool: Runs the work.
        work: Called on each item.
        items: The items; drawn as results are taken.
        ahead: The number of results that may be pending beyond the next one.
        meter: Charged with the waits.
        stage: The name under which the meter is charged.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                yield _take(pending, meter, stage)
        while pending:
            yield _take(pending, meter, stage)
    finally:
        for future in pending:
            future.cancel()


def _take(pending: deque[Future[Result]], meter: Meter, stage: str) -> Result:
    with meter.waiting(stage):
        return pending.popleft().result()


def group(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Group items into lists of one size; the last may be shorter."""
    gathered: list[Item] = []
    for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered

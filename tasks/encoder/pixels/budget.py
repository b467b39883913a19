"""What decoding one image may cost, and how much all threads of a process may decode at once."""

import contextlib
import io
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

LARGE = 64_000_000
"""Bytes from which on an image is decoded by one reader process at a time."""


class BudgetError(ValueError):
    """An image that would take more memory or time than one image may."""


@dataclass(frozen=True)
class Budget:
    """The most that decoding may take.

    Attributes:
        bytes: Memory for one image.
        seconds: CPU time for one image.
        together: Memory for all images that the threads of a process decode at the same time.
        shared: A file descriptor that several reader processes lock to decode large images one after the other.
    """

    bytes: int = 800_000_000
    seconds: float = 10.0
    together: int = 2_000_000_000
    shared: int | None = None


DEFAULT = Budget()
PROVEN = Budget(sys.maxsize, math.inf)
"""For images that have features: some run decoded them within its own budget, which may have been a larger one."""


class TimedFile(io.BytesIO):
    """A file in memory that refuses to be read once its reader has used up its CPU time.

    Pillow's decoders read their input in small pieces, so that a slow one ends here. The time is this thread's own: a
    busy machine changes nothing.
    """

    def __init__(self, data: bytes, seconds: float, clock: Callable[[], float] = time.thread_time) -> None:
        super().__init__(data)
        self._seconds, self._clock = seconds, clock
        self._end = clock() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as BytesIO does.

        Raises:
            BudgetError: if the time is over.
        """
        self.check_time()
        return super().read(size)

    def check_time(self) -> None:
        """Check that some time is left.

        Raises:
            BudgetError: if not.
        """
        if self._clock() > self._end:
            raise BudgetError(f"takes more than {self._seconds:g} s to decode; embed.max_seconds allows no more")


class ByteGate:
    """Lets threads pass as long as the bytes that they hold together do not exceed a total, in the order they came."""

    def __init__(self, total: int) -> None:
        self._total, self._held = total, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextlib.contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold so many bytes; more than the total only while nobody else holds any."""
        count = min(count, self._total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._held + count <= self._total)
            self._held += count
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()


@cache
def open_gate(total: int) -> ByteGate:
    """Return the process's gate for a total."""
    return ByteGate(total)


@contextlib.contextmanager
def hold_memory(needed: int, budget: Budget) -> Iterator[None]:
    """Hold the memory that an image needs, once other readers leave enough.

    Raises:
        BudgetError: if it needs more than one image may have.
    """
    check_memory(needed, budget)
    with open_gate(budget.together).hold(needed), _lock_large(needed, budget.shared):
        yield


def check_memory(needed: int, budget: Budget) -> None:
    """Refuse an image that needs more memory than one image may have.

    Raises:
        BudgetError: if it does.
    """
    if needed > budget.bytes:
        raise BudgetError(
            f"needs {math.ceil(needed / 1e6):,} MB to decode; embed.max_bytes allows {budget.bytes / 1e6:,.0f} MB"
        )


@contextlib.contextmanager
def _lock_large(needed: int, file: int | None) -> Iterator[None]:
    if file is None or needed < LARGE:
        yield
        return
    import fcntl  # reader processes exist only where it does

    fcntl.lockf(file, fcntl.LOCK_EX)  # between processes; it ends with the process, too
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)

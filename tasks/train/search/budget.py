"""The budget of a search: what still fits into its minutes and bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.train.settings import SearchSettings


class OutOfTimeError(Exception):
    """A training that was ended, as the rest of it would not end in time."""


@dataclass
class Budget:
    """Minutes from now on, and bytes of features; ``clock`` gives seconds."""

    settings: SearchSettings
    clock: Callable[[], float] = time.monotonic
    spent: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self.began = self.clock()

    @property
    def deadline(self) -> float:
        """When time is up, by the clock."""
        return self.began + 60 * self.settings.minutes

    @property
    def seconds_left(self) -> float:
        """How much time is left."""
        return self.deadline - self.clock()

    def refuse(self, seconds: float, size: int, share: float = 1.0) -> str | None:
        """Say why something does not fit that would take so many seconds and bytes; None where it does.

        It may take a share of the time that is left.
        """
        left, room = max(share * self.seconds_left, 0.0), max(self.settings.bytes - self.spent, 0)
        if size > room:
            return f"not tried: its features take {size:,} bytes, and search.bytes leave {room:,}"
        if seconds > left or not left:
            return f"not tried: would take about {seconds:,.0f} s, and search.minutes leave it {left:,.0f} s"
        return None

    def spend(self, size: int) -> None:
        """Take bytes away, whether they lie in the lake already or not: a second search decides alike."""
        self.spent += size

"""The budget of a search: what still fits into its minutes and bytes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.train.settings import SearchSettings


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
    def seconds_left(self) -> float:
        """How much time is left."""
        return 60 * self.settings.minutes - (self.clock() - self.began)

    def refuse(self, seconds: float, size: int) -> str | None:
        """Say why something does not fit that would take so many seconds and bytes; None where it does."""
        left, room = self.seconds_left, self.settings.bytes - self.spent
        if size > room:
            return f"not tried: its features take {size:,} bytes, and {max(room, 0):,} of search.bytes are left"
        if seconds > left or left <= 0:
            return f"not tried: would take about {seconds:,.0f} s, and {max(left, 0):,.0f} s of search.minutes are left"
        return None

    def spend(self, size: int) -> None:
        """Take bytes away, whether they lie in the lake already or not: a second search decides alike."""
        self.spent += size

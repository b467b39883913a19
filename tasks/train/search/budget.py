"""The budget of a search, in minutes and in bytes of features."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.plural import pluralize
from tasks.train.settings import SearchSettings


class OutOfTimeError(Exception):
    """Training was stopped because it could not finish in time."""


@dataclass
class Budget:
    """A budget of minutes from now on, and of bytes of features; ``clock`` returns seconds."""

    settings: SearchSettings
    clock: Callable[[], float] = time.monotonic
    spent: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = self.clock()

    @property
    def deadline(self) -> float:
        """When the time is up, by the clock."""
        return self.began + 60 * self.settings.minutes

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - self.clock()

    def explain_refusal(self, seconds: float, size: int, share: float = 1.0) -> str | None:
        """Return why something of these seconds and bytes does not fit, or None if it does.

        It may take at most a ``share`` of the time that is left.
        """
        left, room = max(share * self.seconds_left, 0.0), max(self.settings.bytes - self.spent, 0)
        if size > room:
            return f"not tried: its features take {pluralize(size, 'byte')}, and search.bytes leaves {room:,}"
        if seconds > left or not left:
            return f"not tried: would take about {seconds:,.0f} s, and search.minutes leaves {left:,.0f} s"
        return None

    def spend(self, size: int) -> None:
        """Charge bytes, even if the lake has them already, so that a second search decides the same."""
        self.spent += size

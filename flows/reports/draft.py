"""What a run has done until now, noted by the flows that do it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from storage.tables.scans import ScanCounts
from tasks.train.train import Trained


@dataclass
class RunDraft:
    """What a run has done until now: its step, the results of earlier steps, and the features committed so far."""

    name: str
    step: str = "start"
    seconds: dict[str, float] = field(default_factory=dict)
    seen: ScanCounts | None = None
    computed: int = 0
    trained: Trained | None = None
    started: float = field(default_factory=time.perf_counter)
    on_step: Callable[[], None] = lambda: None

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Time a block under the name of a step; ``on_step`` is called when it begins."""
        self.step, start = step, time.perf_counter()
        self.on_step()
        try:
            yield
        finally:
            self.seconds[step] = round(time.perf_counter() - start, 3)
            self.seconds["total"] = round(time.perf_counter() - self.started, 3)


_CURRENT: ContextVar[RunDraft | None] = ContextVar("frostline_run", default=None)


@contextmanager
def drafting(draft: RunDraft) -> Iterator[None]:
    """Let :func:`note_features` of the flows within a block write into a draft."""
    token = _CURRENT.set(draft)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def note_features(added: int) -> None:
    """Note features that were committed in the report of the run that this belongs to, if there is one."""
    draft = _CURRENT.get()
    if draft:
        draft.computed += added

"""How long work tells of its progress, whoever watches."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Given what is done and how many there are of it, gives a function to call with how many more are done."""


@contextlib.contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:  # noqa: ARG001 - nobody watches
    """Tell nobody."""
    yield lambda _: None

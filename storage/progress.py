"""The interface by which long-running work reports its progress."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Called with a description and a total; yields a function to call with the number of items just done."""


@contextlib.contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:  # noqa: ARG001 - reports nothing
    """Report nothing."""
    yield lambda _: None

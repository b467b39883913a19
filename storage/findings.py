"""A finding: one thing about the lake that is wrong, and how it is mended."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which check found it, what it is with the file or row it names, and its repair.

    ``mend`` does the repair; None where only a person can.
    """

    check: str
    what: str
    repair: str
    mend: Callable[[], object] | None = field(default=None, compare=False, repr=False)

"""What a check of the lake finds: the file or row, what is wrong with it, and how it is mended."""

from collections.abc import Callable
from dataclasses import dataclass, field

from storage.lake import Lake


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; ``mend`` repairs it, and is None where only the user can."""

    kind: str
    subject: str
    problem: str
    repair: str
    mend: Callable[[Lake], None] | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, object]:
        """Give it as an object."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "problem": self.problem,
            "repair": self.repair,
            "repairable": self.mend is not None,
        }

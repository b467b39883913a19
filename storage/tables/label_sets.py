"""Label sets: which sources feed one."""

from collections.abc import Sequence

from storage.lake.lake import Lake
from storage.names import LabelSetName, SourceName

REVIEW_MARK = "review:"
"""What begins the source of a reviewed label; no source's name has a colon."""


def list_sources(lake: Lake, label_set: LabelSetName) -> list[SourceName]:
    """List the sources that gave a label set its labels; a source of the same name feeds it by default."""
    found = lake.column(
        "SELECT DISTINCT source FROM labels WHERE label_set = ? AND NOT starts_with(source, ?)",
        [label_set, REVIEW_MARK],
    )
    return sorted({SourceName(label_set), *found})


def find_root(lake: Lake, sources: Sequence[SourceName]) -> str | None:
    """Find where the source that was scanned last lies, as text; None if none was ever scanned."""
    roots = lake.column(
        "SELECT root FROM scans WHERE source IN (SELECT unnest(?)) ORDER BY scanned_at", [list(sources)]
    )
    return roots[-1] if roots else None

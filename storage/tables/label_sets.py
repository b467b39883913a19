"""Label sets and the sources that feed them."""

from collections.abc import Sequence

from storage.lake.lake import Lake
from storage.names import LabelSetName, SourceName

REVIEW_MARK = "review:"
"""Prefix of the source of a reviewed label; the name of a source has no colon."""


def list_sources(lake: Lake, label_set: LabelSetName) -> list[SourceName]:
    """List the sources of a label set's labels; by default a source of the same name is one."""
    found = lake.column(
        "SELECT DISTINCT source FROM labels WHERE label_set = ? AND NOT starts_with(source, ?)",
        [label_set, REVIEW_MARK],
    )
    return sorted({SourceName(label_set), *found})


def find_root(lake: Lake, sources: Sequence[SourceName]) -> str | None:
    """Find the root, as text, of the source that was scanned last; None if none was ever scanned."""
    roots = lake.column(
        "SELECT root FROM scans WHERE source IN (SELECT unnest(?)) ORDER BY scanned_at", [list(sources)]
    )
    return roots[-1] if roots else None

"""Snapshots: found by number or tag, named, and compared."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.errors import LakeError
from storage.lake.ducklake_files import META
from storage.lake.lake import Lake, Row
from storage.locations.home import Home

TAG = re.compile(r"[A-Za-z][\w.-]*")
KEYS = {
    "images": ("image_id", "files WHERE image_id IS NOT NULL"),
    "labels": ("label_set, image_id, class", "labels"),
    "features": ("recipe_id, image_id", "features"),
    "predictions": ("name, version, image_id, class", "predictions"),
}
"""What counts as one thing of each kind, and where it stands. An image is there while a source has it."""


@dataclass(frozen=True)
class Change:
    """What one snapshot has and another has not, both ways."""

    columns: tuple[str, ...]
    added: tuple[Row, ...]
    removed: tuple[Row, ...]

    @property
    def changed(self) -> int:
        """Count the images on both sides: they were given another class."""
        at = self.columns.index("image_id")
        return len({row[at] for row in self.added} & {row[at] for row in self.removed})

    def to_json(self, limit: int) -> dict[str, Any]:
        """Give the counts, and the first rows of each list."""
        return {
            "added": len(self.added),
            "removed": len(self.removed),
            "changed": self.changed,
            "columns": self.columns,
            "rows_added": self.added[:limit],
            "rows_removed": self.removed[:limit],
        }


def find_snapshot(lake: Lake, name: int | str) -> int:
    """Find a snapshot by its number or its tag.

    Raises:
        LakeError: where the lake has none of that name.
    """
    if not is_number(name):
        return _find_tagged(lake, name)
    if not lake.value("SELECT count(*) FROM ducklake_snapshots('lake') WHERE snapshot_id = ?", [int(name)]):
        raise missing_snapshot_error(lake.home, name)
    if int(name) < lake.value(f"SELECT min(begin_snapshot) FROM {META}.ducklake_table"):
        raise LakeError(f"snapshot {name} of lake {lake.home.lake}", "has no tables yet", "Choose a later one")
    return int(name)


def is_number(name: int | str) -> bool:
    """Tell a snapshot's number from its tag, which begins with a letter."""
    return isinstance(name, int) or (name.isascii() and name.isdecimal())


def missing_snapshot_error(home: Home, name: int | str) -> LakeError:
    """Say that a lake has no such snapshot."""
    return LakeError(
        f"snapshot {name} of lake {home.lake}",
        "is not there: it was never made, or has expired",
        "See `frostline sql \"select snapshot_id from ducklake_snapshots('lake')\"`",
    )


def tag_snapshot(lake: Lake, tag: str, name: int | str | None, now: datetime) -> int:
    """Name a snapshot, the newest by default, so that it never expires; gives its number.

    Raises:
        LakeError: where the tag is no name, or another snapshot's.
    """
    if not TAG.fullmatch(tag):
        raise LakeError(f"tag {tag!r}", "starts with a letter and has letters, digits, . - _ alone", "Choose another")
    newest = lake.snapshot

    def write() -> int:
        if lake.value("SELECT count(*) FROM erasures WHERE erased_at IS NULL"):
            remedy = "Finish it first: `frostline erase`"
            raise LakeError(f"tag {tag!r}", "names nothing while an erasure is open, which ends every snapshot", remedy)
        snapshot = find_snapshot(lake, newest if name is None else name)
        known = lake.column("SELECT snapshot FROM tags WHERE tag = ?", [tag])
        if known and known != [snapshot]:
            rule = f"names snapshot {known[0]} already"
            raise LakeError(f"tag {tag!r}", rule, f"Delete it first: frostline tag {tag} --delete")
        if not known:
            lake.execute("INSERT INTO tags VALUES (?, ?, ?)", [tag, snapshot, now])
        return snapshot

    return lake.commit(write)


def delete_tag(lake: Lake, tag: str) -> int:
    """Forget a tag; gives the number of the snapshot that it named.

    Raises:
        LakeError: where the lake has no such tag.
    """

    def write() -> int:
        snapshot = _find_tagged(lake, tag)
        lake.execute("DELETE FROM tags WHERE tag = ?", [tag])
        return snapshot

    return lake.commit(write)


def compare(lake: Lake, before: int, after: int) -> dict[str, Change]:
    """Compare two snapshots: images, labels, features and predictions that came and went between them.

    Whole snapshots are compared, not their logs of changes, so that compaction in between shows as nothing.
    """
    return {kind: _compare(lake, kind, before, after) for kind in KEYS}


def _find_tagged(lake: Lake, tag: int | str) -> int:
    found = lake.column("SELECT snapshot FROM tags WHERE tag = ?", [tag])
    if not found:
        raise LakeError(f"tag {tag!r}", "is none of this lake's", "See `frostline status` for its tags")
    return int(found[0])


def _compare(lake: Lake, kind: str, before: int, after: int) -> Change:
    keys, rows = KEYS[kind]
    columns = tuple(keys.split(", "))
    shown = ", ".join(f"{key}::VARCHAR AS {key}" if key == "image_id" else key for key in columns)
    table, _, condition = rows.partition(" ")

    def only_in(one: int, other: int) -> tuple[Row, ...]:
        sides = " EXCEPT ".join(
            f"SELECT {keys} FROM {table} AT (VERSION => {int(snapshot)}) {condition}" for snapshot in (one, other)
        )
        return tuple(lake.read(f"SELECT {shown} FROM ({sides}) ORDER BY ALL")[1])

    return Change(columns, only_in(after, before), only_in(before, after))

"""Snapshots: find them by number or tag, tag and compare them."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.errors import LakeError
from storage.lake.ducklake_files import META
from storage.lake.lake import Lake, Row
from storage.locations.home import Home

TAG = re.compile(r"[A-Za-z][\w.-]*")
CHANGE = re.compile(r"(\w+):(\d+)")
"""What was done to which table, by number, as DuckLake records it: ``inserted_into_table:14,inlined_delete:19``."""
ADDITIONS = ("inserted_into_table", "inlined_insert")
KEYS = {
    "images": ("image_id", "files WHERE image_id IS NOT NULL"),
    "labels": ("label_set, image_id, class", "labels"),
    "features": ("recipe_id, image_id", "features"),
    "predictions": ("name, version, image_id, class", "predictions"),
}
"""For each kind: its key columns, and its table with a condition. An image counts while a source has it."""


@dataclass(frozen=True)
class Change:
    """Rows that were added and removed between two snapshots."""

    columns: tuple[str, ...]
    added: tuple[Row, ...]
    removed: tuple[Row, ...]

    @property
    def changed(self) -> int:
        """The number of images on both sides: their class changed."""
        column = self.columns.index("image_id")
        return len({row[column] for row in self.added} & {row[column] for row in self.removed})

    def to_json(self, limit: int) -> dict[str, Any]:
        """Return the counts, and the first ``limit`` rows of each list."""
        return {
            "added": len(self.added),
            "removed": len(self.removed),
            "changed": self.changed,
            "columns": self.columns,
            "rows_added": self.added[:limit],
            "rows_removed": self.removed[:limit],
        }


@dataclass(frozen=True)
class TableChanges:
    """Which tables were changed up to the newest snapshot: those with new rows, and those changed in another way."""

    newest: int
    added: frozenset[str]
    rewritten: frozenset[str]


def find_snapshot(lake: Lake, name: int | str) -> int:
    """Find a snapshot by its number or its tag.

    Raises:
        LakeError: if the lake has no such snapshot.
    """
    if not is_number(name):
        return _find_tagged(lake, name)
    if not lake.value("SELECT count(*) FROM ducklake_snapshots('lake') WHERE snapshot_id = ?", [int(name)]):
        raise missing_snapshot_error(lake.home, name)
    if int(name) < lake.value(f"SELECT min(begin_snapshot) FROM {META}.ducklake_table"):
        raise LakeError(f"snapshot {name} of lake {lake.home.lake}", "has no tables yet", "Choose a later one")
    return int(name)


def list_changes(lake: Lake, since: int, made: str) -> TableChanges | None:
    """List the tables that were changed after a snapshot, given by its number and by :func:`find_time`.

    Returns:
        None if that cannot be told: the lake is another one or older than that, or some snapshots have expired.
    """
    snapshots = lake.rows(
        f"""SELECT snapshot_id, snapshot_time::VARCHAR, changes_made FROM {META}.ducklake_snapshot
            LEFT JOIN {META}.ducklake_snapshot_changes USING (snapshot_id)
            WHERE snapshot_id >= ? ORDER BY snapshot_id""",
        [since],
    )
    numbers = [number for number, *_ in snapshots]
    if numbers != list(range(since, since + len(numbers))) or not numbers or snapshots[0][1] != made:
        return None
    changes = {change for _, _, text in snapshots[1:] for change in CHANGE.findall(text or "")}
    rows = lake.rows(f"SELECT table_id::VARCHAR, table_name FROM {META}.ducklake_table")
    names = {str(number): str(name) for number, name in rows}
    added = {names.get(number, number) for kind, number in changes if kind in ADDITIONS}
    rewritten = {names.get(number, number) for kind, number in changes if kind not in ADDITIONS}
    return TableChanges(numbers[-1], frozenset(added), frozenset(rewritten))


def find_time(lake: Lake, snapshot: int) -> str:
    """Find when a snapshot was made, as text."""
    sql = f"SELECT snapshot_time::VARCHAR FROM {META}.ducklake_snapshot WHERE snapshot_id = ?"
    return str(lake.value(sql, [snapshot]))


def is_number(name: int | str) -> bool:
    """Return whether a name is a snapshot's number; tags begin with a letter."""
    return isinstance(name, int) or (name.isascii() and name.isdecimal())


def missing_snapshot_error(home: Home, name: int | str) -> LakeError:
    """Return the error of a snapshot that the lake does not have."""
    return LakeError(
        f"snapshot {name} of lake {home.lake}",
        "does not exist: it was never made, or has expired",
        "See `frostline sql \"select snapshot_id from ducklake_snapshots('lake')\"`",
    )


def tag_snapshot(lake: Lake, tag: str, name: int | str | None, now: datetime) -> int:
    """Tag a snapshot, by default the newest, so that it never expires; returns its number.

    Raises:
        LakeError: if the tag is not a valid name, or belongs to another snapshot.
    """
    if not TAG.fullmatch(tag):
        raise LakeError(
            f"tag {tag!r}", "must start with a letter and have only letters, digits, . - _", "Choose another"
        )
    newest = lake.snapshot

    def write() -> int:
        if lake.value("SELECT count(*) FROM erasures WHERE erased_at IS NULL"):
            remedy = "Finish it first: `frostline erase`"
            raise LakeError(
                f"tag {tag!r}", "cannot be set while an erasure is unfinished, which ends every snapshot", remedy
            )
        snapshot = find_snapshot(lake, newest if name is None else name)
        tagged = lake.column("SELECT snapshot FROM tags WHERE tag = ?", [tag])
        if tagged and tagged != [snapshot]:
            rule = f"names snapshot {tagged[0]} already"
            raise LakeError(f"tag {tag!r}", rule, f"Delete it first: frostline tag {tag} --delete")
        if not tagged:
            lake.execute("INSERT INTO tags VALUES (?, ?, ?)", [tag, snapshot, now])
        return snapshot

    return lake.commit(write)


def delete_tag(lake: Lake, tag: str) -> int:
    """Delete a tag; returns the number of its snapshot.

    Raises:
        LakeError: if the lake has no such tag.
    """

    def write() -> int:
        snapshot = _find_tagged(lake, tag)
        lake.execute("DELETE FROM tags WHERE tag = ?", [tag])
        return snapshot

    return lake.commit(write)


def compare(lake: Lake, before: int, after: int) -> dict[str, Change]:
    """Compare two snapshots: the images, labels, features and predictions added and removed between them.

    Compares the contents of the snapshots, not their change logs, so that compaction in between does not show.
    """
    return {kind: _compare(lake, kind, before, after) for kind in KEYS}


def _find_tagged(lake: Lake, tag: int | str) -> int:
    found = lake.column("SELECT snapshot FROM tags WHERE tag = ?", [tag])
    if not found:
        raise LakeError(f"tag {tag!r}", "does not exist in this lake", "See `frostline status` for its tags")
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

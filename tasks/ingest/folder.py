"""A folder as a source: ``root/<class>/**/*`` with an image's suffix."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from storage.errors import SourceError
from storage.files import FILES, Listing
from storage.formats import SUFFIXES
from storage.paths import path_to_text

_Inode = tuple[int, int]


@dataclass
class _Seen:
    """What a walk has collected so far: rows of (path, bytes, mtime_ns)."""

    rows: list[tuple[str, int, int]] = field(default_factory=list)
    ignored: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def list_folder(source: str, root: Path) -> Listing:
    """List the images below a folder by name, size and time; opens no file.

    Links are followed, each folder once in each class, but none upwards. Names that begin with a dot are ignored. A
    folder that cannot be listed is reported in ``unreadable``, and the rest is listed.

    Raises:
        SourceError: where the root is no folder that can be listed.
    """
    check_folder(root)
    seen = _walk(str(root))
    if any(path == "" for path, _ in seen.unreadable):
        raise SourceError(f"folder {root}", f"cannot be listed ({seen.unreadable[0][1]})", "Mend its permissions")
    return Listing(source, path_to_text(str(root)), to_table(seen.rows), seen.ignored, tuple(seen.unreadable))


def check_folder(root: Path) -> None:
    """Refuse a root that is not there or no folder.

    Raises:
        SourceError: naming it.
    """
    if not root.exists():
        raise SourceError(f"folder {root}", "does not exist", "Check the path, or mount the disk that it lies on")
    if not root.is_dir():
        raise SourceError(f"{root}", "is no folder", "Name the folder that holds one folder for each class")


def to_table(rows: list[tuple[str, int, int]]) -> pa.Table:
    """Write rows of (path, bytes, mtime_ns) as a table of ``FILES``; the class is the path's first folder."""
    return pa.table(
        [
            pa.array([row[0] for row in rows], pa.string()),
            pa.array([row[1] for row in rows], pa.int64()),
            pa.array([row[2] for row in rows], pa.int64()),
            pa.array([_class_of(row[0]) for row in rows], pa.string()),
        ],
        schema=FILES,
    )


def _class_of(path: str) -> str | None:
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def _walk(root: str) -> _Seen:
    """Collect all files; a link that leads up is not followed, and one that leads aside once in each class."""
    seen = _Seen()
    visited: set[tuple[str | None, _Inode]] = set()
    pending: list[tuple[str, str, frozenset[_Inode]]] = [(root, "", frozenset())]
    while pending:
        folder, prefix, above = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            status = Path(folder).stat()
        except OSError as error:
            seen.unreadable.append((prefix.rstrip("/"), _reason(error)))
            continue
        inode = (status.st_dev, status.st_ino)
        here = (_class_of(prefix), inode)
        if here not in visited and inode not in above:
            visited.add(here)
            below = list(_take(entries, prefix, seen))
            pending += [
                (entry.path, f"{prefix}{path_to_text(entry.name)}/", above | {inode}) for entry in reversed(below)
            ]
    return seen


def _take(entries: list[os.DirEntry[str]], prefix: str, seen: _Seen) -> Iterator[os.DirEntry[str]]:
    """Collect the files of one folder; give its folders."""
    for entry in entries:
        try:
            if entry.name.startswith("."):
                seen.ignored += 1
            elif entry.is_dir():
                yield entry
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                status = entry.stat()
                seen.rows.append((prefix + path_to_text(entry.name), status.st_size, status.st_mtime_ns))
            else:
                seen.ignored += 1
        except OSError as error:  # a link that leads round in circles, a file that went away
            seen.unreadable.append((prefix + path_to_text(entry.name), _reason(error)))


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def join_unreadable(listing: Listing, known: Iterator[tuple[str, int, int]]) -> Listing:
    """Add what the lake knows of folders that could not be listed, so that it does not count as gone."""
    have = set(listing.files["path"].to_pylist())
    rows = [row for row in known if row[0] not in have]
    files = pa.concat_tables([listing.files, to_table(rows)])
    return Listing(listing.source, listing.root, files, listing.ignored, listing.unreadable)

"""A folder as a source: ``root/<class>/**/*`` with an image's suffix."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from storage.errors import SourceError
from storage.formats import SUFFIXES
from storage.locations.path_text import encode_path
from storage.names import LabelSetName, SourceName
from storage.tables.scans import FILES, Listing

_Inode = tuple[int, int]


PIECE = 1 << 16  # files that are Python objects at once


@dataclass
class _Seen:
    """What a walk has collected so far: pieces of the listing, and two columns of the next one."""

    pieces: list[pa.RecordBatch] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    ignored: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def pack(self, prefix: str, names: list[str], class_: str | None) -> None:
        """Make a piece of one folder's files, which takes a fraction of their memory; empties the lists."""
        together = "".join(names)
        plain = together.isascii() and "\\" not in together
        paths = [prefix + (name if plain else encode_path(name)) for name in names]
        columns = (paths, self.sizes, self.times, [class_] * len(names))
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, FILES, strict=True)]
        self.pieces.append(pa.record_batch(arrays, schema=FILES))
        for column in (names, self.sizes, self.times):
            column.clear()


def list_folder(source: SourceName, root: Path, label_set: LabelSetName | None = None) -> Listing:
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
    files = pa.Table.from_batches(seen.pieces, FILES)
    return Listing(
        source, encode_path(str(root)), files, seen.ignored, tuple(seen.unreadable), label_set or LabelSetName(source)
    )


def check_folder(root: Path) -> None:
    """Refuse a root that is not there or no folder.

    Raises:
        SourceError: naming it.
    """
    if not root.exists():
        raise SourceError(f"folder {root}", "does not exist", "Check the path, or mount the disk that it lies on")
    if not root.is_dir():
        raise SourceError(f"{root}", "is no folder", "Name the folder that holds one folder for each class")


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
            entries = os.scandir(folder)
            status = Path(folder).stat()
        except OSError as error:
            seen.unreadable.append((prefix.rstrip("/"), _reason(error)))
            continue
        inode = (status.st_dev, status.st_ino)
        here = (_class_of(prefix), inode)
        if here not in visited and inode not in above:
            visited.add(here)
            below = sorted(_take(entries, prefix, seen), reverse=True)
            pending += [(f"{folder}/{name}", f"{prefix}{encode_path(name)}/", above | {inode}) for name in below]
    return seen


def _take(entries: Iterable[os.DirEntry[str]], prefix: str, seen: _Seen) -> list[str]:
    """Collect the files of one folder; gives the names of its folders."""
    folders: list[str] = []
    names, class_ = list[str](), _class_of(prefix)
    for entry in entries:
        name = entry.name
        try:
            if name[0] != "." and name.lower().endswith(SUFFIXES) and entry.is_file():
                status = entry.stat()
                names.append(name)
                seen.sizes.append(status.st_size)
                seen.times.append(status.st_mtime_ns)
            elif name[0] != "." and entry.is_dir():
                folders.append(name)
            else:
                seen.ignored += 1
        except OSError as error:  # a link that leads round in circles, a file that went away
            seen.unreadable.append((prefix + encode_path(name), _reason(error)))
        if len(names) >= PIECE:
            seen.pack(prefix, names, class_)
    seen.pack(prefix, names, class_)
    return folders


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def join_unreadable(listing: Listing, known: Iterable[tuple[str, int, int]]) -> Listing:
    """Add what the lake knows of folders that could not be listed, so that it does not count as gone."""
    have = set(listing.files["path"].to_pylist())
    rows = [dict(zip(FILES.names, (*row, _class_of(row[0])), strict=True)) for row in known if row[0] not in have]
    files = pa.concat_tables([listing.files, pa.Table.from_pylist(rows, FILES)])
    return replace(listing, files=files)

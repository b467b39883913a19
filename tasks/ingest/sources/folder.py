"""A folder as a source: the files ``root/<class>/**/*`` with an image's suffix."""

import os
from collections import Counter
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

LONGEST_SUFFIX = 8
BATCH = 1 << 16  # files that are held as Python objects at once


@dataclass
class _Walk:
    """What a walk has collected so far: batches of the listing, and two columns of the next one."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    ignored: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def pack(self, prefix: str, names: list[str], class_: str | None) -> None:
        """Move one folder's files from the lists into a batch, which takes a fraction of their memory."""
        joined = "".join(names)
        plain = joined.isascii() and "\\" not in joined
        paths = [prefix + (name if plain else encode_path(name)) for name in names]
        columns = (paths, self.sizes, self.times, [class_] * len(names))
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, FILES, strict=True)]
        self.batches.append(pa.record_batch(arrays, schema=FILES))
        for column in (names, self.sizes, self.times):
            column.clear()


def list_folder(source: SourceName, root: Path, label_set: LabelSetName | None = None) -> Listing:
    """List the image files below a folder with their sizes and times; opens no file.

    Links are followed, except to an enclosing folder; each folder is listed once per class. Names that start with a dot
    are ignored. A folder that cannot be listed is reported in ``unreadable``, and the rest is listed.

    Raises:
        SourceError: if the root is not a folder that can be listed.
    """
    check_folder(root)
    walk = _walk(str(root))
    if any(path == "" for path, _ in walk.unreadable):
        raise SourceError(f"folder {root}", f"cannot be listed ({walk.unreadable[0][1]})", "Fix its permissions")
    files = pa.Table.from_batches(walk.batches, FILES)
    labels = label_set or LabelSetName(source)
    return Listing(
        source, encode_path(str(root)), files, walk.ignored, tuple(walk.unreadable), labels, dict(walk.skipped)
    )


def check_folder(root: Path) -> None:
    """Refuse a root that does not exist or is not a folder.

    Raises:
        SourceError: if it does not or is not.
    """
    if not root.exists():
        raise SourceError(f"folder {root}", "does not exist", "Check the path, or mount the disk that it is on")
    if not root.is_dir():
        raise SourceError(f"{root}", "is not a folder", "Name the folder that contains one folder per class")


def _kind_of(name: str) -> str:
    """Return what an ignored file is counted as: its suffix in lower case, "hidden" or "other"."""
    suffix = Path(name).suffix.lower()
    if name[0] == ".":
        return "hidden"
    return suffix if 1 < len(suffix) <= LONGEST_SUFFIX else "other"


def _class_of(path: str) -> str | None:
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def _walk(root: str) -> _Walk:
    """Collect all files; links to an enclosing folder are not followed, others once per class."""
    walk = _Walk()
    visited: set[tuple[str | None, _Inode]] = set()
    pending: list[tuple[str, str, frozenset[_Inode]]] = [(root, "", frozenset())]
    while pending:
        folder, prefix, ancestors = pending.pop()
        try:
            entries = os.scandir(folder)
            status = Path(folder).stat()
        except OSError as error:
            walk.unreadable.append((prefix.rstrip("/"), _reason(error)))
            continue
        inode = (status.st_dev, status.st_ino)
        visit = (_class_of(prefix), inode)
        if visit not in visited and inode not in ancestors:
            visited.add(visit)
            names = sorted(_collect(entries, prefix, walk), reverse=True)
            pending += [(f"{folder}/{name}", f"{prefix}{encode_path(name)}/", ancestors | {inode}) for name in names]
    return walk


def _collect(entries: Iterable[os.DirEntry[str]], prefix: str, walk: _Walk) -> list[str]:
    """Collect the files of one folder; return the names of its subfolders."""
    folders: list[str] = []
    names, class_ = list[str](), _class_of(prefix)
    for entry in entries:
        name = entry.name
        try:
            if name[0] != "." and name.lower().endswith(SUFFIXES) and entry.is_file():
                status = entry.stat()
                names.append(name)
                walk.sizes.append(status.st_size)
                walk.times.append(status.st_mtime_ns)
            elif name[0] != "." and entry.is_dir():
                folders.append(name)
            else:
                walk.ignored += 1
                walk.skipped[_kind_of(name)] += 1
        except OSError as error:  # a link that loops, a file that has just disappeared
            walk.unreadable.append((prefix + encode_path(name), _reason(error)))
        if len(names) >= BATCH:
            walk.pack(prefix, names, class_)
    walk.pack(prefix, names, class_)
    return folders


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def join_unreadable(listing: Listing, recorded: Iterable[tuple[str, int, int]]) -> Listing:
    """Add the files that the lake has below folders that could not be listed, so that they do not count as gone.

    Args:
        listing: The listing.
        recorded: Rows (path, bytes, mtime_ns) of these files.
    """
    listed = set(listing.files["path"].to_pylist())
    rows = [dict(zip(FILES.names, (*row, _class_of(row[0])), strict=True)) for row in recorded if row[0] not in listed]
    files = pa.concat_tables([listing.files, pa.Table.from_pylist(rows, FILES)])
    return replace(listing, files=files)

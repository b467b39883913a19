"""A folder as a source: files with an image's suffix, whose folders say their class and perhaps their split."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from storage.errors import SourceError
from storage.formats import SUFFIXES
from storage.locations.path_text import encode_path
from storage.names import LabelSetName, SourceName
from storage.tables.scans import FILES, Listing
from storage.vectors.columns import repeat_text, to_int64, to_text
from tasks.ingest.sources.kinds import check_kind
from tasks.ingest.sources.layout import AUTO, Layout, Recognised, recognise

_Inode = tuple[int, int]

LONGEST_SUFFIX = 8
BATCH = 1 << 16  # files that are held as Python objects at once
STATED = pa.schema(list(FILES)[:5])
"""What listing a file tells of it; its class and split follow from its folder."""
SMALLEST, LARGEST = -(1 << 63), (1 << 63) - 1


@dataclass
class _Walk:
    """What a walk has collected so far: the files of each folder, and columns of the next piece."""

    batches: list[tuple[str, pa.RecordBatch]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    inodes: list[int] = field(default_factory=list)
    ignored: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, status: os.stat_result) -> None:
        """Add what was stated of a file to the columns."""
        self.sizes.append(status.st_size)
        self.times.append(status.st_mtime_ns)
        self.changes.append(status.st_ctime_ns)
        self.inodes.append(status.st_ino)

    def pack(self, prefix: str, names: list[str]) -> None:
        """Make a piece of one folder's files, which takes a fraction of their memory; empties the lists."""
        if not names:
            return
        joined = "".join(names)
        plain = joined.isascii() and "\\" not in joined
        paths = to_text([prefix + (name if plain else encode_path(name)) for name in names])
        numbers = [_clip(column) for column in (self.sizes, self.times, self.changes, self.inodes)]
        self.batches.append((prefix, pa.record_batch([paths, *numbers], schema=STATED)))
        for column in (names, self.sizes, self.times, self.changes, self.inodes):
            column.clear()


def _clip(numbers: Sequence[int]) -> pa.Array:
    """Convert numbers to 64 bits. A time after the year 2262 or before 1677 becomes the last or first that fits."""
    try:
        return to_int64(numbers)
    except OverflowError:
        return to_int64([min(max(number, SMALLEST), LARGEST) for number in numbers])


def list_folder(source: SourceName, root: Path, label_set: LabelSetName | None = None, layout: str = AUTO) -> Listing:
    """List the image files below a folder with their sizes, times and inodes; opens no file.

    Links are followed, except to an enclosing folder; each folder is listed once per class. Names that start with a dot
    are ignored. A folder that cannot be listed is reported in ``unreadable``, and the rest is listed.

    Raises:
        SourceError: if the root is not a folder that can be listed.
    """
    check_folder(root)
    walk = _walk(str(root))
    if any(path == "" for path, _ in walk.unreadable):
        raise SourceError(f"folder {root}", f"cannot be listed ({walk.unreadable[0][1]})", "Fix its permissions")
    recognised = _recognise(walk, layout)
    files = pa.Table.from_batches([_add_meaning(recognised.layout, *piece) for piece in walk.batches], FILES)
    return Listing(
        source,
        encode_path(str(root)),
        files,
        walk.ignored,
        tuple(walk.unreadable),
        label_set or LabelSetName(source),
        dict(walk.skipped),
        recognised.layout.text,
        recognised.doubt,
        recognised.note,
    )


def _recognise(walk: _Walk, layout: str) -> Recognised:
    if layout != AUTO:
        return Recognised(Layout(layout))
    return recognise({prefix.rstrip("/") for prefix, _ in walk.batches})


def _add_meaning(layout: Layout, prefix: str, stated: pa.RecordBatch) -> pa.RecordBatch:
    """Add the class and the split of one folder's files."""
    meaning = [repeat_text(text, len(stated)) for text in layout.read(prefix.rstrip("/"))]
    return pa.record_batch([*stated.columns, *meaning], schema=FILES)


def check_folder(root: Path) -> None:
    """Refuse a root that does not exist or is not a folder.

    Raises:
        SourceError: if it does not or is not; says what it is instead.
    """
    check_kind(root)
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
    names = list[str]()
    for entry in entries:
        name = entry.name
        try:
            if name[0] != "." and name.lower().endswith(SUFFIXES) and entry.is_file():
                walk.add(entry.stat())
                names.append(name)
            elif name[0] != "." and entry.is_dir():
                folders.append(name)
            else:
                walk.ignored += 1
                walk.skipped[_kind_of(name)] += 1
        except OSError as error:  # a link that loops, a file that has just disappeared
            walk.unreadable.append((prefix + encode_path(name), _reason(error)))
        if len(names) >= BATCH:
            walk.pack(prefix, names)
    walk.pack(prefix, names)
    return folders


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def join_unreadable(listing: Listing, recorded: Iterable[tuple[str, int, int, int | None, int | None]]) -> Listing:
    """Add the files that the lake has below folders that could not be listed, so that they do not count as gone.

    Args:
        listing: The listing.
        recorded: Rows (path, bytes, mtime_ns, ctime_ns, inode) of these files.
    """
    listed, layout = set(listing.files["path"].to_pylist()), Layout(listing.layout)
    rows = [(*row, *layout.read(row[0].rpartition("/")[0])) for row in recorded if row[0] not in listed]
    more = pa.Table.from_pylist([dict(zip(FILES.names, row, strict=True)) for row in rows], FILES)
    return replace(listing, files=pa.concat_tables([listing.files, more]))

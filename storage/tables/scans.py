"""Scans: compare a listing of a source with the lake, and commit its files, images and labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from storage.errors import SourceError
from storage.lake.erased import count_erasures, list_survivors
from storage.lake.lake import Lake
from storage.locations.path_text import decode_path
from storage.names import LabelSetName, SourceName
from storage.plural import pluralize
from storage.tables.review_labels import REVIEWED, drop_reviewed

logger = logging.getLogger(__name__)

FILES = pa.schema(
    [
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.int64()),
        ("class", pa.string()),
        ("given_split", pa.string()),
    ]
)
READS = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.uuid()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("bytes", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("decoding", pa.int32()),
    ]
)
UNDECIDED = "decoding IS NULL AND format IN ('JPEG', 'MPO', 'PNG', 'TIFF')"
"""Images whose decoding version is unknown: read by an earlier release, in a format some of whose pixels changed."""


STALE = """SELECT DISTINCT r.image_id, r.format FROM _reads r JOIN images i USING (image_id)
  WHERE r.decoding > 1 AND i.decoding IS NULL"""
"""Known images whose pixels have changed since the release that read them."""
CHANGED = """image_id IN (SELECT image_id FROM _stale WHERE format NOT IN ('JPEG', 'MPO')) OR
  image_id IN (SELECT image_id FROM _stale) AND recipe_id IN (
    SELECT recipe_id FROM recipes WHERE recipe LIKE '%"interpolation":"bi%')"""
"""The features of images in ``_stale`` whose pixels have changed.

Only recipes that resize smoothly took the decoder that missed the orientation of some JPEG files.
"""


@dataclass(frozen=True)
class Listing:
    """The files of a source now.

    ``files`` has the columns of ``FILES``. ``unreadable`` has a (path, reason) for each folder that could not be
    listed; its files count as unchanged. The classes become labels of ``label_set``. ``skipped`` has the number of
    ignored files by suffix. ``layout`` is what the folders mean, ``doubt`` why they may mean something
    else, and ``note`` what was decided about them.
    """

    source: SourceName
    root: str
    files: pa.Table
    ignored: int
    unreadable: tuple[tuple[str, str], ...]
    label_set: LabelSetName
    skipped: Mapping[str, int] = field(default_factory=dict)
    layout: str = "class"
    doubt: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The files that must be read, in order, and whether the lake has all others exactly as they are listed."""

    changed: list[str]
    same: bool


@dataclass(frozen=True)
class Scan:
    """A listing, and the result of reading its new and changed files: the columns of ``READS``, one row per file.

    ``unchanged`` if the lake has exactly these files already. ``erasures`` is the number of erasures at its beginning.
    """

    listing: Listing
    reads: pa.Table
    unchanged: bool = False
    erasures: int = 0


@dataclass(frozen=True)
class ScanCounts:
    """Counts of a scan: ``seen``, ``new`` and ``gone`` are distinct images, the others are files."""

    seen: int
    new: int
    gone: int
    files: int
    opened: int
    ignored: int
    failed: int


def check_root(lake: Lake, source: SourceName, root: str) -> None:
    """Refuse a source name that another existing folder has already.

    Raises:
        SourceError: if the last scan under this name was of another folder, which still exists.
    """
    last = lake.rows("SELECT root FROM scans WHERE source = ? ORDER BY scanned_at DESC LIMIT 1", [source])
    if not last or last[0][0] == root or not Path(decode_path(last[0][0])).is_dir():
        return
    raise SourceError(f"source {source}", f"is {last[0][0]}, not {root}", "Give this folder another name with --name")


def compare_files(lake: Lake, listing: Listing, *, retry: bool = False, rehash: bool = False) -> Comparison:
    """Compare a listing with the lake. A file that differs in size, times or inode, or is new, must be read.

    Files that were recorded before times of change and inodes were compare by size and time of modification.

    Args:
        lake: The lake.
        listing: The files of a source.
        retry: Whether files that are not images must be read again.
        rehash: Whether all files must be read again.
    """
    source = listing.source
    with lake.temporary_tables(_listing=listing.files):
        rows = lake.rows(
            """SELECT l.path, $3 OR NOT coalesce(f.bytes = l.bytes AND f.mtime_ns = l.mtime_ns
                   AND coalesce(f.ctime_ns = l.ctime_ns AND f.inode = l.inode, true), false) AS changed
               FROM _listing l
               LEFT JOIN (FROM files WHERE source = $1 AND (image_id IS NOT NULL OR NOT $2)) f USING (path)
               WHERE changed OR f.ctime_ns IS DISTINCT FROM l.ctime_ns OR f.inode IS DISTINCT FROM l.inode
                 OR f.given_split IS DISTINCT FROM l.given_split
               ORDER BY l.path""",
            [source, retry, rehash],
        )
    changed = [path for path, differs in rows if differs]
    undecided = list_undecided(lake, source)
    if undecided:  # a new release must look at them once
        changed = sorted({*changed, *undecided}.intersection(listing.files["path"].to_pylist()))
    same = not rows and not changed and find_layout(lake, source) == listing.layout
    return Comparison(changed, same)


def is_recorded(lake: Lake, listing: Listing) -> bool:
    """Return whether the lake has exactly the files of a listing, from the same folder with the same meaning.

    Finds out what :func:`compare_files` would, without giving the listing to DuckDB, for which it imports pandas.
    """
    source = listing.source
    last = lake.rows("SELECT root, layout FROM scans WHERE source = ? ORDER BY scanned_at DESC LIMIT 1", [source])
    if last != [(listing.root, listing.layout)] or list_undecided(lake, source):
        return False
    columns = [name for name in FILES.names if name != "class"]  # that follows from the path and the layout
    recorded = lake.table(f"SELECT {', '.join(columns)} FROM files WHERE source = ? ORDER BY path", [source])
    listed = listing.files.select(columns)
    same: bool = listed.num_rows == recorded.num_rows and listed.sort_by("path").equals(recorded)
    return same


def find_layout(lake: Lake, source: SourceName) -> str | None:
    """Find what the folders of a source meant at its last scan; None if it was never scanned."""
    layouts = lake.column("SELECT layout FROM scans WHERE source = ? ORDER BY scanned_at DESC LIMIT 1", [source])
    return (layouts[0] or "class") if layouts else None


def list_undecided(lake: Lake, source: SourceName) -> list[str]:
    """List the files whose image has no decoding version yet, though its pixels may have changed since."""
    if not lake.rows(f"SELECT 1 FROM images WHERE {UNDECIDED} LIMIT 1"):
        return []
    undecided = f"SELECT image_id FROM images WHERE {UNDECIDED}"
    return lake.column(f"SELECT path FROM files WHERE source = ? AND image_id IN ({undecided})", [source])


def count_files(lake: Lake, source: SourceName) -> int:
    """Count the files of a source in the lake."""
    return int(lake.value("SELECT count(*) FROM files WHERE source = ?", [source]))


def list_below(
    lake: Lake, source: SourceName, folders: Sequence[str]
) -> list[tuple[str, int, int, int | None, int | None]]:
    """List the (path, bytes, mtime_ns, ctime_ns, inode) of the files that the lake has below some folders."""
    return lake.rows(
        """SELECT path, bytes, mtime_ns, ctime_ns, inode FROM files WHERE source = ?
           AND EXISTS (FROM (SELECT unnest(?) AS folder) WHERE folder = '' OR starts_with(path, folder || '/'))""",
        [source, list(folders)],
    )


def list_paths(lake: Lake, sources: Sequence[SourceName]) -> dict[str, list[str]]:
    """List the paths of each image of some sources, relative to their roots."""
    rows = lake.rows(
        """SELECT image_id::VARCHAR, list(path ORDER BY path) FROM files
           WHERE source IN (SELECT unnest(?)) AND image_id IS NOT NULL GROUP BY image_id""",
        [list(sources)],
    )
    return dict(rows)


_LABELS_AFTER = f"""SELECT DISTINCT image_id, coalesce(reviewed.class, found.class) AS class FROM (
    SELECT image_id, class FROM _listing JOIN (
      SELECT path, image_id FROM _reads UNION ALL
      SELECT path, image_id FROM files WHERE source = $2 AND path NOT IN (SELECT path FROM _reads)
    ) USING (path) WHERE image_id IS NOT NULL AND class IS NOT NULL
  ) found LEFT JOIN ({REVIEWED}) reviewed USING (image_id)"""


def labels_after(lake: Lake, scan: Scan) -> list[tuple[str, str]]:
    """Compute the distinct (image_id, class) that will be in the lake once a scan is committed."""
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads):
        return lake.rows(
            f"SELECT image_id::VARCHAR, class FROM ({_LABELS_AFTER})", [scan.listing.label_set, scan.listing.source]
        )


def count_labels_after(lake: Lake, scan: Scan, *, several: bool) -> dict[str, int]:
    """Count the images of each class once a scan is committed; those of several classes only with ``several``."""
    unique = "SELECT image_id FROM labelled GROUP BY image_id HAVING count(*) = 1"
    single = "" if several else f"WHERE image_id IN ({unique})"
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads):
        rows = lake.rows(
            f"""WITH labelled AS MATERIALIZED ({_LABELS_AFTER})
                SELECT class, count(*) FROM labelled {single} GROUP BY class""",
            [scan.listing.label_set, scan.listing.source],
        )
    return dict(rows)


def commit_scan(lake: Lake, scan: Scan, now: datetime) -> ScanCounts:
    """Write the files, images, labels and failures of a scan to the lake, in one transaction."""
    if scan.unchanged:
        return lake.commit(lambda: _write_unchanged(lake, scan, now))
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads, _unreadable=_unreadable(scan.listing)):
        return lake.commit(lambda: _write_scan(lake, scan, now))


def _write_unchanged(lake: Lake, scan: Scan, now: datetime) -> ScanCounts:
    source = scan.listing.source
    lake.execute("DELETE FROM failures WHERE source = ? AND recipe_id IS NULL AND stage = 'read'", [source])
    sql = "SELECT count(DISTINCT image_id) FROM files WHERE source = ?"
    return _write_row(lake, scan, now, (int(lake.value(sql, [source])), 0, 0))


def _write_scan(lake: Lake, scan: Scan, now: datetime) -> ScanCounts:
    source = scan.listing.source
    _leave_out_erased(lake, scan)
    before = lake.table("SELECT DISTINCT image_id FROM files WHERE source = ? AND image_id IS NOT NULL", [source])
    known = int(lake.value("SELECT count(*) FROM images"))
    _write_files(lake, source)
    _write_images(lake, now)
    _write_labels(lake, scan.listing, now)
    _write_failures(lake, source, now)
    with lake.temporary_tables(_before=before):
        seen, gone = lake.rows(
            """SELECT count(DISTINCT image_id),
                 (SELECT count(*) FROM _before WHERE image_id NOT IN
                    (SELECT image_id FROM files WHERE source = $1 AND image_id IS NOT NULL))
               FROM files WHERE source = $1 AND image_id IS NOT NULL""",
            [source],
        )[0]
    new = int(lake.value("SELECT count(*) FROM images")) - known
    return _write_row(lake, scan, now, (seen, new, gone))


def _leave_out_erased(lake: Lake, scan: Scan) -> None:
    """Leave out what was read, if images were erased since: new images and erased ones look alike.

    Files without a row are read again by the next scan. Those of erased images should be gone by then.
    """
    if count_erasures(lake) == scan.erasures:
        return
    left = lake.value(f"SELECT count(*) FROM _reads WHERE NOT ({list_survivors(lake)})")
    if left:
        lake.execute(f"DELETE FROM _reads WHERE NOT ({list_survivors(lake)})")
        logger.warning(
            "%s of source %s left for the next run: images were erased while it was scanned",
            pluralize(left, "file"),
            scan.listing.source,
        )


def _write_files(lake: Lake, source: SourceName) -> None:
    lake.execute(
        """DELETE FROM files WHERE source = ?
           AND (path NOT IN (SELECT path FROM _listing) OR path IN (SELECT path FROM _reads))""",
        [source],
    )
    lake.execute(
        """UPDATE files SET ctime_ns = l.ctime_ns, inode = l.inode, given_split = l.given_split FROM _listing l
           WHERE files.source = ? AND files.path = l.path AND (files.ctime_ns IS DISTINCT FROM l.ctime_ns
             OR files.inode IS DISTINCT FROM l.inode OR files.given_split IS DISTINCT FROM l.given_split)""",
        [source],
    )
    # A file that could not be read at all gets no row, so that the next scan tries it again.
    lake.execute(
        """INSERT INTO files SELECT ?, l.path, l.bytes, l.mtime_ns, NULL, r.image_id, l.ctime_ns, l.inode, l.given_split
           FROM _listing l JOIN _reads r USING (path) WHERE r.stage IS DISTINCT FROM 'read'""",
        [source],
    )


def _write_images(lake: Lake, now: datetime) -> None:
    _drop_stale(lake)
    lake.execute(
        """INSERT INTO images SELECT image_id, any_value(format), any_value(width), any_value(height),
             any_value(mode), any_value(bytes), ?, any_value(decoding) FROM _reads
           WHERE image_id IS NOT NULL AND image_id NOT IN (SELECT image_id FROM images) GROUP BY image_id""",
        [now],
    )


def _drop_stale(lake: Lake) -> None:
    """Decide the decoding versions of known images, and drop what was computed from pixels that have changed since."""
    stale = lake.table(STALE)
    for (version,) in lake.rows("SELECT DISTINCT decoding FROM _reads WHERE decoding IS NOT NULL"):
        lake.execute(
            """UPDATE images SET decoding = $1 WHERE decoding IS NULL
               AND image_id IN (SELECT image_id FROM _reads WHERE decoding = $1)""",
            [version],
        )
    if stale.num_rows:
        with lake.temporary_tables(_stale=stale):
            lake.execute(f"DELETE FROM features WHERE {CHANGED}")
            lake.execute("DELETE FROM predictions WHERE image_id IN (SELECT image_id FROM _stale)")


def _write_labels(lake: Lake, listing: Listing, now: datetime) -> None:
    label_set, source = listing.label_set, listing.source
    desired = """SELECT DISTINCT f.image_id, l.class FROM files f JOIN _listing l USING (path)
                 WHERE f.source = $2 AND f.image_id IS NOT NULL AND l.class IS NOT NULL"""
    lake.execute(
        f"DELETE FROM labels WHERE label_set = $1 AND source = $2 AND (image_id, class) NOT IN ({desired})",
        [label_set, source],
    )
    drop_reviewed(lake, label_set, source)
    lake.execute(
        f"""INSERT INTO labels SELECT $1, d.image_id, d.class, $2, $3 FROM ({desired}) d
            ANTI JOIN (FROM labels WHERE label_set = $1) k ON k.image_id = d.image_id AND k.class = d.class
            ANTI JOIN ({REVIEWED}) r ON r.image_id = d.image_id""",
        [label_set, source, now],
    )


def _write_failures(lake: Lake, source: SourceName, now: datetime) -> None:
    lake.execute(
        """DELETE FROM failures WHERE source = $1 AND CASE WHEN recipe_id IS NULL
             THEN path NOT IN (SELECT path FROM files WHERE source = $1 AND image_id IS NULL)
               AND (path, reason) NOT IN (SELECT path, reason FROM _unreadable UNION ALL
                                          SELECT path, reason FROM _reads WHERE stage = 'read')
               OR path IN (SELECT path FROM _reads WHERE stage IS NULL OR stage = 'probe')
             ELSE image_id NOT IN (SELECT image_id FROM files WHERE source = $1 AND image_id IS NOT NULL) END""",
        [source],
    )
    lake.execute(
        """INSERT INTO failures SELECT $1, path, NULL, NULL, stage, reason, $2 FROM (
             SELECT path, stage, reason FROM _reads WHERE stage IS NOT NULL UNION ALL
             SELECT path, 'read', reason FROM _unreadable
           ) WHERE (path, reason) NOT IN
             (SELECT path, reason FROM failures WHERE source = $1 AND recipe_id IS NULL)""",
        [source, now],
    )


def _write_row(lake: Lake, scan: Scan, now: datetime, images: tuple[int, int, int]) -> ScanCounts:
    listing = scan.listing
    failed = int(lake.value("SELECT count(*) FROM failures WHERE source = ? AND recipe_id IS NULL", [listing.source]))
    seen, new, gone = images
    counts = ScanCounts(seen, new, gone, listing.files.num_rows, scan.reads.num_rows, listing.ignored, failed)
    row = [listing.source, listing.root, now, counts.files, counts.opened, counts.ignored, seen, new, gone, failed]
    row.append(listing.layout)
    lake.execute("INSERT INTO scans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return counts


def _unreadable(listing: Listing) -> pa.Table:
    return pa.table(
        {
            "path": pa.array([path for path, _ in listing.unreadable], pa.string()),
            "reason": pa.array([reason for _, reason in listing.unreadable], pa.string()),
        }
    )

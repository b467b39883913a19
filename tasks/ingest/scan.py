"""Scanning a source: list it, and read what the lake does not have yet. Nothing is written."""

from pathlib import Path

from storage.errors import SourceError
from storage.lake.attach import read_lake
from storage.lake.erased import count_erasures
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.progress import Progress
from storage.sources.open_image import Source
from storage.tables.scans import Listing, Scan, check_root, count_files, labels_after, list_below, list_changed
from tasks.ingest.probe import read_files
from tasks.ingest.settings import IngestSettings
from tasks.ingest.sources.folder import join_unreadable, list_folder


def scan(
    home: Home,
    source: SourceName,
    root: Path,
    settings: IngestSettings,
    progress: Progress,
    *,
    label_set: LabelSetName | None = None,
    retry: bool = False,
) -> Scan:
    """List a folder and read its new and changed files; other files are not opened.

    Args:
        home: The lake's home.
        source: The source's name.
        root: The folder.
        settings: The settings of ingesting.
        progress: Reports the files read.
        label_set: The label set whose classes the folders' names are; by default the one named like the source.
        retry: Whether to read files again that were not images before.

    Raises:
        SourceError: if the folder is missing, is not the source's, or contains no image files.
    """
    with read_lake(home) as lake:
        listing = _list(lake, source, root, label_set)
        if not listing.files.num_rows:
            raise SourceError(
                f"folder {root}",
                f"contains no images ({listing.ignored} other files)",
                "Put images into one folder per class, or check that its disk is mounted",
            )
        changed = list_changed(lake, source, listing.files, retry=retry)
        unchanged = not changed and _is_complete(lake, listing)
        erasures = count_erasures(lake)
    with progress("read", len(changed)) as advance:
        reads = read_files(Source(source, listing.root), changed, settings, advance)
    return Scan(listing, reads, unchanged, erasures)


def is_unchanged(home: Home, source: SourceName, root: Path) -> bool:
    """Return whether a folder is unchanged since its last scan; opens none of its files.

    Raises:
        SourceError: if the folder is missing or is not the source's.
    """
    with read_lake(home) as lake:
        listing = _list(lake, source, root)
        return _is_complete(lake, listing) and not list_changed(lake, source, listing.files)


def predict_labels(home: Home, scanned: Scan) -> list[tuple[str, str]]:
    """Return the (image_id, class) pairs that the lake will have once a scan is committed."""
    with read_lake(home) as lake:
        return labels_after(lake, scanned)


def _list(lake: Lake, source: SourceName, root: Path, label_set: LabelSetName | None = None) -> Listing:
    listing = list_folder(source, root, label_set)
    check_root(lake, source, listing.root)
    folders = [path for path, _ in listing.unreadable]
    return join_unreadable(listing, list_below(lake, source, folders)) if folders else listing


def _is_complete(lake: Lake, listing: Listing) -> bool:
    return not listing.unreadable and count_files(lake, listing.source) == listing.files.num_rows

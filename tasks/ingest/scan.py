"""Look at a source: list it, and read what the lake does not know yet. Nothing is written."""

from pathlib import Path

from storage.errors import SourceError
from storage.lake.attach import read_lake
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
    """List a folder and read its new and changed files, with ``retry`` also those that were no image before.

    Other files are not opened. The folders' names are classes of the ``label_set``, by default the source's namesake.

    Raises:
        SourceError: where the folder is missing, is not the one that its name says, or has no image's file in it.
    """
    with read_lake(home) as lake:
        listing = _list(lake, source, root, label_set)
        if not listing.files.num_rows:
            raise SourceError(
                f"folder {root}",
                f"has no image in it ({listing.ignored} other files)",
                "Put images into one folder for each class, or check that its disk is mounted",
            )
        changed = list_changed(lake, source, listing.files, retry=retry)
        same = not changed and _has_all(lake, listing)
    with progress("read", len(changed)) as advance:
        return Scan(listing, read_files(Source(source, listing.root), changed, settings, advance), same)


def is_unchanged(home: Home, source: SourceName, root: Path) -> bool:
    """Tell whether a folder is as the lake knows it; opens none of its files.

    Raises:
        SourceError: as :func:`scan`.
    """
    with read_lake(home) as lake:
        listing = _list(lake, source, root)
        return _has_all(lake, listing) and not list_changed(lake, source, listing.files)


def predict_labels(home: Home, scanned: Scan) -> list[tuple[str, str]]:
    """Return the (image_id, class) that the lake will have once a scan is committed."""
    with read_lake(home) as lake:
        return labels_after(lake, scanned)


def _list(lake: Lake, source: SourceName, root: Path, label_set: LabelSetName | None = None) -> Listing:
    listing = list_folder(source, root, label_set)
    check_root(lake, source, listing.root)
    folders = [path for path, _ in listing.unreadable]
    return join_unreadable(listing, list_below(lake, source, folders)) if folders else listing


def _has_all(lake: Lake, listing: Listing) -> bool:
    return not listing.unreadable and count_files(lake, listing.source) == listing.files.num_rows

"""Scanning a source: list it, and read what the lake does not have yet. Nothing is written."""

from dataclasses import dataclass
from pathlib import Path

from storage.errors import SourceError
from storage.lake.attach import read_lake
from storage.lake.erased import count_erasures
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.plural import pluralize
from storage.progress import Progress
from storage.queries.vanished import Vanished, find_vanished
from storage.sources.open_image import Source
from storage.tables.scans import (
    Listing,
    Scan,
    check_root,
    compare_files,
    count_files,
    find_layout,
    is_recorded,
    labels_after,
    list_below,
)
from tasks.ingest.settings import IngestSettings
from tasks.ingest.sources.folder import join_unreadable, list_folder
from tasks.ingest.sources.layout import AUTO, CHOICES


@dataclass(frozen=True)
class ScanOptions:
    """Which files to read besides new and changed ones, and what to refuse.

    ``retry`` reads files that were no image before, ``rehash`` all. ``strict`` refuses folders that may mean something
    else, and ``accept_gone`` accepts a loss of images however large.
    """

    retry: bool = False
    rehash: bool = False
    strict: bool = False
    accept_gone: bool = False


def scan(
    home: Home,
    source: SourceName,
    root: Path,
    settings: IngestSettings,
    progress: Progress,
    options: ScanOptions = ScanOptions(),
    label_set: LabelSetName | None = None,
) -> Scan:
    """List a folder and read its new and changed files; other files are opened only if the options say so.

    Args:
        home: The lake's home.
        source: The source's name.
        root: The folder.
        settings: The settings of ingesting.
        progress: Reports the files read.
        options: Which other files to read, and what to refuse.
        label_set: The label set whose classes the folders' names are; by default the one named like the source.

    Raises:
        SourceError: if the folder is missing, is not the source's, or contains no image files; if the options are
            strict, also if it is unclear what its folders mean.
    """
    with read_lake(home) as lake:
        listing = _list(lake, source, root, settings, label_set)
        if options.strict and listing.doubt:
            raise explain_doubt(listing)
        if not listing.files.num_rows:
            raise SourceError(
                f"folder {root}",
                f"contains no images ({pluralize(listing.ignored, 'other file')})",
                "Put images into one folder per class, or check that its disk is mounted",
            )
        found = compare_files(lake, listing, retry=options.retry, rehash=options.rehash)
        unchanged = found.same and _is_complete(lake, listing)
        erasures = count_erasures(lake)
    from tasks.ingest.probe import read_files  # imports Pillow, which a run with nothing to do does not need

    with progress("read", len(found.changed)) as advance:
        reads = read_files(Source(source, listing.root), found.changed, settings, advance)
    return Scan(listing, reads, unchanged, erasures)


def list_unchanged(
    lake: Lake, source: SourceName, root: Path, settings: IngestSettings, label_set: LabelSetName | None = None
) -> Listing | None:
    """List a folder; None if it differs from the lake, or if a run may refuse it. Opens no file.

    Raises:
        SourceError: if the folder is missing.
    """
    listing = list_folder(source, root, label_set, settings.layout)
    if listing.doubt or listing.unreadable or not listing.files.num_rows:
        return None
    return listing if is_recorded(lake, listing) else None


def survey_losses(home: Home, scanned: Scan) -> Vanished:
    """Find what would be gone from the source once a scan is committed."""
    if scanned.unchanged:
        return Vanished()
    with read_lake(home) as lake:
        return find_vanished(lake, scanned)


def check_losses(home: Home, scanned: Scan, settings: IngestSettings) -> None:
    """Refuse a scan that would take away too much.

    Raises:
        SourceError: saying what is gone.
    """
    vanished = survey_losses(home, scanned)
    if vanished.exceeds(settings.max_gone):
        raise explain_losses(vanished, scanned.listing.source, settings)


def explain_losses(vanished: Vanished, source: SourceName, settings: IngestSettings) -> SourceError:
    """Return the error that says what is gone."""
    rule = f"{vanished}, which is more than ingest.max_gone {settings.max_gone:g}"
    remedy = "Check that its disk is mounted and complete, or confirm with --accept-gone that they are meant to be gone"
    return SourceError(f"source {source}", rule, remedy)


def explain_doubt(listing: Listing) -> SourceError:
    """Return the error that says what the folders of a source may mean."""
    return SourceError(f"folder {listing.root}", f"{listing.doubt}", f"Say which: {CHOICES}")


def list_refusals(home: Home, scanned: Scan, settings: IngestSettings, *, accept_gone: bool) -> list[SourceError]:
    """List why a run would refuse what was scanned."""
    listing = scanned.listing
    refusals = [explain_doubt(listing)] if listing.doubt else []
    vanished = Vanished() if accept_gone else survey_losses(home, scanned)
    if vanished.exceeds(settings.max_gone):
        refusals.append(explain_losses(vanished, listing.source, settings))
    return refusals


def predict_labels(home: Home, scanned: Scan) -> list[tuple[str, str]]:
    """Return the (image_id, class) pairs that the lake will have once a scan is committed."""
    with read_lake(home) as lake:
        return labels_after(lake, scanned)


def _list(
    lake: Lake, source: SourceName, root: Path, settings: IngestSettings, label_set: LabelSetName | None = None
) -> Listing:
    listing = list_folder(source, root, label_set, settings.layout)
    check_root(lake, source, listing.root)
    folders = [path for path, _ in listing.unreadable]
    before = find_layout(lake, source)
    if folders and before and settings.layout == AUTO:  # a folder is missing by which the layout was recognised
        listing = list_folder(source, root, label_set, before)
    return join_unreadable(listing, list_below(lake, source, folders)) if folders else listing


def _is_complete(lake: Lake, listing: Listing) -> bool:
    return not listing.unreadable and count_files(lake, listing.source) == listing.files.num_rows

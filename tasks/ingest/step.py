"""The ingest step's tasks."""

from datetime import UTC, datetime
from pathlib import Path

from storage.lake.attach import open_lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.progress import Progress
from storage.tables.scans import Scan, ScanCounts, commit_scan
from tasks.ingest.scan import ScanOptions, check_losses, scan
from tasks.ingest.settings import IngestSettings
from tasks.step_task import step_task


@step_task("scan {source}", retry_on=OSError)  # such as a network share that is briefly unavailable
def scan_source(
    home: Home,
    source: SourceName,
    label_set: LabelSetName,
    root: Path,
    settings: IngestSettings,
    progress: Progress,
    options: ScanOptions,
) -> Scan:
    """List a source and read its new files; writes nothing. Refuses a source of which too many images are gone."""
    found = scan(home, source, root, settings, progress, options, label_set)
    if not options.accept_gone:
        check_losses(home, found, settings)
    return found


@step_task("commit scan of {source}")
def commit_source(home: Home, source: SourceName, scanned: Scan) -> ScanCounts:  # noqa: ARG001 - names the task run
    """Commit a scan's results."""
    with open_lake(home) as lake:
        return commit_scan(lake, scanned, datetime.now(UTC))

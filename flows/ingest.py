"""The ingest flow: scan a source and commit what changed."""

from flows.operations.space import check_room
from flows.orchestrator.flow import flow
from flows.progress import show_progress
from flows.settings import RunSettings
from storage.tables.scans import ScanCounts
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.ingest.scan import ScanOptions, predict_labels
from tasks.ingest.step import commit_source, scan_source
from tasks.train.rows.coverage import check_classes
from tasks.train.rows.splits import select_rows


@flow("ingest {settings.source}")
def ingest(
    settings: RunSettings, *, for_training: bool = False, recipes: tuple[ResolvedRecipe, ...] = ()
) -> ScanCounts:
    """Scan the source and commit what changed: files, images, labels, failures.

    With ``for_training``, labels that cannot be trained on are refused before anything is written. So are images whose
    features under the ``recipes`` would fill the disk.
    """
    scanned = scan_source(
        settings.resolved_home,
        settings.source_name,
        settings.label_set,
        settings.source_path,
        settings.ingest,
        show_progress,
        ScanOptions(settings.retry, settings.rehash, strict=True, accept_gone=settings.accept_gone),
    )
    if for_training and not scanned.unchanged:
        check_classes(select_rows(predict_labels(settings.resolved_home, scanned), settings.train), settings.train)
    if recipes and not scanned.unchanged:
        check_room(settings, recipes, scanned)
    return commit_source(settings.resolved_home, settings.source_name, scanned)

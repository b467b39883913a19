"""The ingest step's tasks."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from storage.lake.attach import open_lake
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.progress import Progress
from storage.tables.scans import Scan, ScanCounts, commit_scan
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings


async def _reads_may_recover(_: Task[..., object], __: TaskRun, state: State[object]) -> bool:
    """Try again after the operating system's errors, such as a share that went away for a moment."""
    return isinstance(await state.aresult(raise_on_failure=False), OSError)


@task(
    task_run_name="scan {source}",
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_reads_may_recover,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def scan_source(
    home: Home,
    source: SourceName,
    label_set: LabelSetName,
    root: Path,
    settings: IngestSettings,
    progress: Progress,
    *,
    retry: bool,
) -> Scan:
    """List a source and read what is new in it; writes nothing."""
    return scan(home, source, root, settings, progress, label_set=label_set, retry=retry)


@task(task_run_name="commit scan of {source}", cache_policy=NO_CACHE, persist_result=False)
def commit_source(home: Home, source: SourceName, found: Scan) -> ScanCounts:  # noqa: ARG001 - names the task run
    """Commit what a scan saw."""
    with open_lake(home) as lake:
        return commit_scan(lake, found, datetime.now(UTC))

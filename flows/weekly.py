"""Maintenance as a flow, for a schedule. The command does the same without Prefect."""

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.operations.maintain import MaintenanceResult, describe_maintenance, maintain
from flows.reports.escape import escape_markdown
from flows.settings import FILE_GRACE_PERIOD, SNAPSHOT_RETENTION, HomeSettings


@flow(name="maintain", flow_run_name="maintain {settings.home}", persist_result=False)
def maintain_lake(
    settings: HomeSettings, older_than: timedelta = SNAPSHOT_RETENTION, grace: timedelta = FILE_GRACE_PERIOD
) -> MaintenanceResult:
    """Compact small files, expire old snapshots, delete what killed runs left; safe while others write.

    Args:
        settings: Where the lake is stored.
        older_than: Expire snapshots older than this, unless a tag or a registered model names them.
        grace: Delete unreferenced files older than this; it must exceed the longest run and the longest query.
    """
    result = maintain(settings.resolved_home, older_than, grace, datetime.now(UTC))
    lines = "\n".join(f"- {escape_markdown(line)}" for line in describe_maintenance(result, dry_run=False))
    create_markdown_artifact(lines, key="frostline-maintenance", description="What maintenance did")
    return result

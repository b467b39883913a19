"""Maintenance as a flow, for a schedule; the command does without Prefect."""

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.operations.maintain import Maintained, describe_maintained, maintain
from flows.settings import GRACE, KEPT, HomeSettings


@flow(name="maintain", flow_run_name="maintain {settings.home}", persist_result=False)
def maintain_lake(settings: HomeSettings, older_than: timedelta = KEPT, grace: timedelta = GRACE) -> Maintained:
    """Compact small files, expire old snapshots, delete what killed runs left; safe while others write.

    Args:
        settings: Where the lake lies.
        older_than: The age from which a snapshot expires, unless a tag or a registered model names it.
        grace: The age from which a file that no snapshot names is deleted: longer than any run or query lasts.
    """
    done = maintain(settings.resolved_home, older_than, grace, datetime.now(UTC))
    lines = "\n".join(f"- {line}" for line in describe_maintained(done, dry=False))
    create_markdown_artifact(lines, key="frostline-maintenance", description="What maintenance did")
    return done

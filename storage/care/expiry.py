"""Expiry: old snapshots that nothing refers to, and the files that only they use."""

from datetime import datetime

from storage.lake.lake import Lake

_KEPT = """SELECT snapshot FROM tags UNION ALL
           SELECT h.snapshot FROM heads h WHERE h.training_id IN (SELECT training_id FROM models)"""


def list_expirable(lake: Lake, before: datetime) -> list[int]:
    """List the snapshots made before a time, except the newest, tagged ones, and those of registered models."""
    return lake.column(
        f"""SELECT snapshot_id FROM ducklake_snapshots('lake') WHERE snapshot_time < ?
            AND snapshot_id NOT IN ({_KEPT})
            AND snapshot_id < (SELECT max(snapshot_id) FROM ducklake_snapshots('lake')) ORDER BY ALL""",
        [before],
    )


def expire(lake: Lake, before: datetime) -> list[int]:
    """Expire the old snapshots; their files are deleted later, when nobody can be reading them."""
    if not list_expirable(lake, before):
        return []

    def write() -> list[int]:
        expirable = list_expirable(lake, before)
        if expirable:
            lake.execute(f"CALL ducklake_expire_snapshots('lake', versions => {expirable})")
        return expirable

    return lake.commit(write)


def list_unread(lake: Lake, before: datetime) -> list[str]:
    """List the files that no snapshot has used since a time."""
    return lake.column("CALL ducklake_cleanup_old_files('lake', dry_run => true, older_than => ?)", [before])


def delete_unread(lake: Lake, before: datetime) -> list[str]:
    """Delete the files that no snapshot has used since a time; returns their paths."""
    unread = list_unread(lake, before)
    if unread:
        lake.commit(lambda: lake.execute("CALL ducklake_cleanup_old_files('lake', older_than => ?)", [before]))
    return unread

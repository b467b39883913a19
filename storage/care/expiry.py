"""Expiry: old snapshots that nothing names any more, and the files that only they read."""

from datetime import datetime

from storage.lake.lake import Lake

_KEPT = """SELECT snapshot FROM tags UNION ALL
           SELECT h.snapshot FROM heads h WHERE h.training_id IN (SELECT training_id FROM models)"""


def list_expirable(lake: Lake, before: datetime) -> list[int]:
    """List the snapshots made before a moment, but the newest, the tagged, and those that a registered model names."""
    return lake.column(
        f"""SELECT snapshot_id FROM ducklake_snapshots('lake') WHERE snapshot_time < ?
            AND snapshot_id NOT IN ({_KEPT})
            AND snapshot_id < (SELECT max(snapshot_id) FROM ducklake_snapshots('lake')) ORDER BY ALL""",
        [before],
    )


def expire(lake: Lake, before: datetime) -> list[int]:
    """Forget the snapshots that may be; their files are deleted later, when nobody can be reading them."""
    if not list_expirable(lake, before):
        return []

    def write() -> list[int]:
        expirable = list_expirable(lake, before)
        if expirable:
            lake.execute(f"CALL ducklake_expire_snapshots('lake', versions => {expirable})")
        return expirable

    return lake.commit(write)


def list_unread(lake: Lake, before: datetime) -> list[str]:
    """List the files that no snapshot has read since a moment."""
    return lake.column("CALL ducklake_cleanup_old_files('lake', dry_run => true, older_than => ?)", [before])


def delete_unread(lake: Lake, before: datetime) -> list[str]:
    """Delete the files that no snapshot has read since a moment; gives them."""
    unread = list_unread(lake, before)
    if unread:
        lake.commit(lambda: lake.execute("CALL ducklake_cleanup_old_files('lake', older_than => ?)", [before]))
    return unread

"""The commands that look after the lake: tag, maintain, erase, check, move."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter, Token

from flows.command.options import HomeOptions
from flows.reports.output import OutputOptions, print_result
from flows.settings import FILE_GRACE_PERIOD, SNAPSHOT_RETENTION, HomeSettings
from storage.names import SourceName


def _from_command_line(_: type, tokens: Sequence[Token]) -> str | None:
    """Take a value from the command line only: the source in frostline.toml must not be erased by mistake."""
    return next((token.value for token in tokens if token.source == "cli"), None)


CommandLineOnly = Annotated[str | None, Parameter(converter=_from_command_line)]


def tag(
    name: str,
    /,
    *,
    at: str | None = None,
    delete: bool = False,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Give a snapshot a name, so that it never expires.

    Args:
        name: The tag.
        at: The snapshot's number or another tag; by default the newest snapshot.
        delete: Delete the tag instead.
    """
    from storage.lake.attach import open_existing_lake
    from storage.lake.snapshots import delete_tag, tag_snapshot

    with open_existing_lake(settings.resolved_home) as lake:
        snapshot = delete_tag(lake, name) if delete else tag_snapshot(lake, name, at, datetime.now(UTC))
    line = f"deleted tag {name} of snapshot {snapshot}" if delete else f"tagged snapshot {snapshot} as {name}"
    print_result(output, {"tag": name, "snapshot": snapshot, "deleted": delete}, lambda: [line])


def maintain(
    *,
    older_than: timedelta = SNAPSHOT_RETENTION,
    grace: timedelta = FILE_GRACE_PERIOD,
    dry_run: bool = False,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Compact small files, expire old snapshots, delete what killed runs left behind. Safe while runs write.

    Args:
        older_than: Expire snapshots older than this, such as 30d, unless a tag or a registered model names them.
        grace: Delete unreferenced files older than this; it must exceed the longest run and the longest query.
        dry_run: Show what would be done and write nothing.
    """
    from flows.operations import maintain as operation

    maintain_lake = operation.plan_maintenance if dry_run else operation.maintain
    result = maintain_lake(settings.resolved_home, older_than, grace, datetime.now(UTC))
    print_result(
        output, {"dry_run": dry_run, **asdict(result)}, lambda: operation.describe_maintenance(result, dry_run=dry_run)
    )


def erase(
    *images: str,
    source: CommandLineOnly = None,
    where: CommandLineOnly = None,
    dry_run: bool = False,
    yes: bool = False,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Erase images for good from every table, snapshot and file. Without arguments, finish an interrupted erasure.

    Args:
        images: Ids of images, or the start of each.
        source: A source; erases every image that is in no other source.
        where: A condition in SQL on images, files and labels, such as "path like 'ward-7/%'".
        dry_run: Show what would be erased and write nothing.
        yes: Do not ask for confirmation.
    """
    from flows.operations.erase import describe_erasure, erase_images

    source_name = SourceName(source) if source else None
    result = erase_images(settings.resolved_home, images, source_name, where, dry_run=dry_run, yes=yes)
    print_result(output, result.to_json(), lambda: describe_erasure(result))


def doctor(
    *,
    deep: bool = False,
    repair: bool = False,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Check the lake: catalog, files, checksums, rows, recipes, backbones, heads. Exits with 1 if something is wrong.

    Args:
        deep: Also read every file of features in full, and embed a sample of images again.
        repair: Repair what can be repaired; exits with 0 only if that was everything.
    """
    from flows.operations.doctor import describe_checks, examine, is_sound, to_json

    results = examine(settings.resolved_home, datetime.now(UTC), deep=deep, repair=repair)
    print_result(output, to_json(results), lambda: describe_checks(results, repair=repair))
    if not is_sound(results):
        sys.exit(1)


def move(*, settings: HomeOptions = HomeSettings(), output: OutputOptions = OutputOptions()) -> None:
    """Copy the home's lake, with every snapshot, to lake.catalog and lake.data. The old lake stays."""
    from storage.care.move import move_lake

    home = settings.resolved_home
    snapshot = move_lake(home)
    print_result(output, {"lake": home.lake, "snapshot": snapshot}, lambda: [f"moved to {home.lake}"])

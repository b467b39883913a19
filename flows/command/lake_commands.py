"""The commands that look at the lake and look after it."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token

from flows.reports.output import Output, answer, table, tables
from flows.settings import GRACE, KEPT, HomeSettings
from storage.names import LabelSetName, SourceName

LISTED = 1000
"""Rows of each list that --json shows."""

Where = Annotated[HomeSettings, Parameter(name="*")]


def _typed(_: type, tokens: Sequence[Token]) -> str | None:
    """Take a value from the command line alone: what the settings call the source is not thereby to be erased."""
    return next((token.value for token in tokens if token.source == "cli"), None)


def sql(query: str, /, *, at: str | None = None, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Query the lake; it cannot be changed this way.

    Args:
        query: In DuckDB's SQL, such as "from labels".
        at: A snapshot's number or tag, to see the lake as it was.
    """
    from storage.lake.attach import read_existing_lake

    with read_existing_lake(where.resolved_home, at) as lake:
        columns, rows = lake.read(query)
    answer(out, {"columns": columns, "rows": rows}, lambda: table(columns, rows))


def status(*, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Count what the lake holds: sources, images, recipes, features, failures, models, tags; name the snapshot."""
    from storage.lake.attach import read_existing_lake
    from storage.tables.summary import summarize

    with read_existing_lake(where.resolved_home) as lake:
        found = summarize(lake)
    answer(out, found, lambda: tables(found))


def export(
    folder: Path,
    /,
    *,
    recipe: str = "",
    at: str | None = None,
    where: str | None = None,
    labels: str | None = None,
    form: Annotated[Literal["parquet", "datasets"], Parameter(name="--format")] = "parquet",
    settings: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Write features with their classes into a new folder, with a manifest; nothing else is needed to read it.

    Args:
        folder: A folder that does not exist.
        recipe: A recipe's id or its beginning; may be left out where the lake has one recipe.
        at: A snapshot's number or tag, to write the features as they were.
        where: A condition in SQL over images, files and labels, such as "class = 'rose' and width >= 224".
        labels: The label set whose classes stand beside the vectors; may be left out where the lake has one.
        form: Plain Parquet, or a folder for load_from_disk of Hugging Face's datasets.
    """
    from storage.lake.attach import read_existing_lake
    from storage.vectors.export import export_features
    from storage.vectors.features_reader import find_features

    with read_existing_lake(settings.resolved_home) as lake:
        features = find_features(lake, recipe, at, where)
        made = export_features(
            features, folder, datetime.now(UTC), label_set=LabelSetName(labels) if labels else None, form=form
        )
    size = sum(file.bytes for file in made.files)
    told = f"{made.rows} features of snapshot {made.snapshot} in {len(made.files)} files, {size / 1e6:.1f} MB: {folder}"
    answer(out, asdict(made), lambda: [told])


def lineage(what: str, version: int | None = None, /, *, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Trace a model version to its rows, snapshot, recipe and code; or an image to the models that used it.

    Args:
        what: A model's name, or an image's id.
        version: Of the model; by default its newest.
    """
    from storage.lake.attach import read_existing_lake
    from storage.tables.lineage import trace

    with read_existing_lake(where.resolved_home) as lake:
        found = trace(lake, what, version)
    answer(out, found, lambda: tables(found))


def move(*, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Copy the home's lake, with every snapshot, to where lake.catalog and lake.data say; the old one stays."""
    from storage.care.move import move_lake

    snapshot = move_lake(where.resolved_home)
    answer(
        out, {"lake": where.resolved_home.lake, "snapshot": snapshot}, lambda: [f"moved to {where.resolved_home.lake}"]
    )


def tag(
    name: str,
    /,
    *,
    at: str | None = None,
    delete: bool = False,
    where: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Name a snapshot, so that it never expires.

    Args:
        name: The name.
        at: The snapshot's number; by default the newest.
        delete: Forget the name instead.
    """
    from storage.lake.attach import open_existing_lake
    from storage.lake.snapshots import delete_tag, tag_snapshot

    with open_existing_lake(where.resolved_home) as lake:
        snapshot = delete_tag(lake, name) if delete else tag_snapshot(lake, name, at, datetime.now(UTC))
    told = f"{name} names snapshot {snapshot}" + (" no longer" if delete else "")
    answer(out, {"tag": name, "snapshot": snapshot, "deleted": delete}, lambda: [told])


def diff(before: str, after: str, /, *, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Show what came and went between two snapshots: images, labels, features, predictions.

    Args:
        before: A snapshot's number or tag.
        after: Another.
    """
    from storage.lake.attach import read_existing_lake
    from storage.lake.snapshots import compare, find_snapshot

    with read_existing_lake(where.resolved_home) as lake:
        first, last = find_snapshot(lake, before), find_snapshot(lake, after)
        found = compare(lake, first, last)
    rows = [(kind, len(change.added), len(change.removed), change.changed) for kind, change in found.items()]
    value = {kind: change.to_json(LISTED) for kind, change in found.items()}
    answer(
        out,
        {"before": first, "after": last, **value},
        lambda: table(("", "added", "removed", "of these changed"), rows, title=f"snapshot {first} to {last}"),
    )


def maintain(
    *,
    older_than: timedelta = KEPT,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    where: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Compact small files, expire old snapshots, delete what killed runs left; safe while others write.

    Args:
        older_than: The age from which a snapshot expires, such as 30d, unless a tag or a registered model names it.
        grace: The age from which a file that no snapshot names is deleted: longer than any run or query lasts.
        dry_run: Say what would be done; writes nothing.
    """
    from flows.operations import maintain as maintenance

    step = maintenance.plan_maintenance if dry_run else maintenance.maintain
    done = step(where.resolved_home, older_than, grace, datetime.now(UTC))
    answer(out, {"dry_run": dry_run, **asdict(done)}, lambda: maintenance.describe_maintained(done, dry=dry_run))


def erase(
    *images: str,
    source: Annotated[str | None, Parameter(converter=_typed)] = None,
    where: Annotated[str | None, Parameter(converter=_typed)] = None,
    dry_run: bool = False,
    yes: bool = False,
    settings: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Erase images from every table, snapshot and file of the lake, for good; without a name, finish what broke off.

    Args:
        images: Ids of images, or their beginnings.
        source: A source, with every image that lies in no other.
        where: A condition in SQL over images, files and labels, such as "path like 'ward-7/%'".
        dry_run: Tell what would go, and write nothing.
        yes: Do not ask.
    """
    from flows.operations.erase import describe_erasure, erase_images

    found = erase_images(
        settings.resolved_home, images, SourceName(source) if source else None, where, dry_run=dry_run, yes=yes
    )
    answer(out, found.to_json(), lambda: describe_erasure(found))


def doctor(*, deep: bool = False, repair: bool = False, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Check the lake: catalog, files, checksums, rows, recipes, backbones, heads. Exit code 1 where something is wrong.

    Args:
        deep: Also read every file of features whole, and embed a sample of images again.
        repair: Repair what can be; exit code 0 only where all was.
    """
    from flows.operations.doctor import describe, examine, is_sound, to_json

    found = examine(where.resolved_home, datetime.now(UTC), deep=deep, repair=repair)
    answer(out, to_json(found), lambda: describe(found, repair=repair))
    if not is_sound(found):
        sys.exit(1)

"""The commands that read the lake and change nothing in it."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.command.options import HomeOptions
from flows.reports.output import OutputOptions, build_table, build_tables, print_result
from flows.settings import HomeSettings
from storage.names import LabelSetName
from storage.plural import pluralize

MAX_JSON_ROWS = 1000
"""Rows of each list that `diff --json` prints."""


def sql(
    query: str,
    /,
    *,
    at: str | None = None,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Query the lake; queries are read-only.

    Args:
        query: The query in DuckDB's SQL, such as "from labels".
        at: A snapshot's number or tag, to see the lake as it was.
    """
    from storage.lake.attach import read_existing_lake

    with read_existing_lake(settings.resolved_home, at) as lake:
        columns, rows = lake.read(query)
    print_result(output, {"columns": columns, "rows": rows}, lambda: build_table(columns, rows))


def status(*, settings: HomeOptions = HomeSettings(), output: OutputOptions = OutputOptions()) -> None:
    """Show what the lake holds: its newest snapshot, sources, images, recipes, features, failures, models and tags."""
    from storage.lake.attach import read_existing_lake
    from storage.queries.summary import summarize

    with read_existing_lake(settings.resolved_home) as lake:
        summary = summarize(lake)
    print_result(output, summary, lambda: build_tables(summary))


def lineage(
    what: str,
    version: int | None = None,
    /,
    *,
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Trace a model version to its rows, snapshot, recipe and code, or an image to the models that used it.

    Args:
        what: A model's name or an image's id.
        version: The model's version; by default its newest.
    """
    from storage.lake.attach import read_existing_lake
    from storage.queries.lineage import trace

    with read_existing_lake(settings.resolved_home) as lake:
        traced = trace(lake, what, version)
    print_result(output, traced, lambda: build_tables(traced))


def diff(
    before: str, after: str, /, *, settings: HomeOptions = HomeSettings(), output: OutputOptions = OutputOptions()
) -> None:
    """Show what was added and removed between two snapshots: images, labels, features, predictions.

    Args:
        before: The earlier snapshot's number or tag.
        after: The later snapshot's number or tag.
    """
    from storage.lake.attach import read_existing_lake
    from storage.lake.snapshots import compare, find_snapshot

    with read_existing_lake(settings.resolved_home) as lake:
        first, last = find_snapshot(lake, before), find_snapshot(lake, after)
        changes = compare(lake, first, last)
    rows = [(kind, len(change.added), len(change.removed), change.changed) for kind, change in changes.items()]
    value = {kind: change.to_json(MAX_JSON_ROWS) for kind, change in changes.items()}
    print_result(
        output,
        {"before": first, "after": last, **value},
        lambda: build_table(("", "added", "removed", "changed (in both)"), rows, f"snapshot {first} to {last}"),
    )


def export(
    folder: Path,
    /,
    *,
    recipe: str = "",
    at: str | None = None,
    where: str | None = None,
    labels: str | None = None,
    form: Annotated[Literal["parquet", "datasets"], Parameter(name="--format")] = "parquet",
    settings: HomeOptions = HomeSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Write features and their classes to a new folder, with a manifest. Reading it needs neither lake nor Frostline.

    Args:
        folder: The folder to create; it must not exist.
        recipe: A recipe's id or the start of it; optional if the lake has only one recipe.
        at: A snapshot's number or tag, to export the features as they were.
        where: A condition in SQL on images, files and labels, such as "class = 'rose' and width >= 224".
        labels: The label set to take classes from; optional if the lake has only one.
        form: Plain Parquet, or a folder for load_from_disk of Hugging Face's datasets.
    """
    from storage.lake.attach import read_existing_lake
    from storage.vectors.export import export_features
    from storage.vectors.features_reader import find_features

    label_set = LabelSetName(labels) if labels else None
    with read_existing_lake(settings.resolved_home) as lake:
        features = find_features(lake, recipe, at, where)
        manifest = export_features(features, folder, datetime.now(UTC), label_set=label_set, form=form)
    size = sum(file.bytes for file in manifest.files) / 1e6
    rows, files = pluralize(manifest.rows, "feature"), pluralize(len(manifest.files), "file")
    line = f"{rows} of snapshot {manifest.snapshot} in {files}, {size:.1f} MB: {folder}"
    print_result(output, asdict(manifest), lambda: [line])

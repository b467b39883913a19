"""The commands that look at the lake and look after it."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.answer import Output, answer, table, tables
from flows.settings import HomeSettings

Where = Annotated[HomeSettings, Parameter(name="*")]


def sql(query: str, /, *, at: int | None = None, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Query the lake; it cannot be changed this way.

    Args:
        query: In DuckDB's SQL, such as "from labels".
        at: A snapshot, to see the lake as it was.
        where: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake

    with read_lake(where.place, at) as lake:
        columns, rows = lake.read(query)
    answer(out, {"columns": columns, "rows": rows}, lambda: table(columns, rows))


def status(*, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Count what the lake holds: sources, images, recipes, features, failures, models; name the snapshot.

    Args:
        where: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake
    from storage.summary import summarize

    with read_lake(where.place) as lake:
        found = summarize(lake)
    answer(out, found, lambda: tables(found))


def export(
    folder: Path,
    /,
    *,
    recipe: str = "",
    at: int | None = None,
    where: str | None = None,
    labels: str | None = None,
    form: Annotated[Literal["parquet", "datasets"], Parameter(name="--format")] = "parquet",
    place: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Write features with their classes into a new folder, with a manifest; nothing else is needed to read it.

    Args:
        folder: A folder that does not exist.
        recipe: A recipe's id or its beginning; may be left out where the lake has one recipe.
        at: A snapshot, to write the features as they were.
        where: A condition in SQL over images, files and labels, such as "class = 'rose' and width >= 224".
        labels: The label set whose classes stand beside the vectors; may be left out where the lake has one.
        form: Plain Parquet, or a folder for load_from_disk of Hugging Face's datasets.
        place: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake
    from storage.export import export_features

    with read_lake(place.place, at) as lake:
        features = lake.features(recipe, at, where)
        made = export_features(features, folder, datetime.now(UTC), label_set=labels, form=form)
    size = sum(file.bytes for file in made.files)
    told = f"{made.rows} features of snapshot {made.snapshot} in {len(made.files)} files, {size / 1e6:.1f} MB: {folder}"
    answer(out, asdict(made), lambda: [told])


def lineage(what: str, version: int | None = None, /, *, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Trace a model version to its rows, snapshot, recipe and code; or an image to the models that used it.

    Args:
        what: A model's name, or an image's id.
        version: Of the model; by default its newest.
        where: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake
    from storage.lineage import trace

    with read_lake(where.place) as lake:
        found = trace(lake, what, version)
    answer(out, found, lambda: tables(found))


def move(*, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Copy the home's lake, with every snapshot, to where lake.catalog and lake.data say; the old one stays.

    Args:
        where: The home, and where its lake shall lie.
        out: How the command answers.
    """
    from storage.move import move_lake

    snapshot = move_lake(where.place)
    answer(out, {"lake": where.place.lake, "snapshot": snapshot}, lambda: [f"moved to {where.place.lake}"])


def erase(
    *images: str,
    source: str | None = None,
    where: str | None = None,
    dry_run: bool = False,
    yes: bool = False,
    place: Where = HomeSettings(),
    out: Output = Output(),
) -> None:
    """Erase images from every table, snapshot and file of the lake, for good; without a name, finish what broke off.

    Args:
        images: Ids of images, or their beginnings.
        source: A source, with every image that lies in no other.
        where: A condition in SQL over images, files and labels, such as "path like 'ward-7/%'".
        dry_run: Tell what would go, and write nothing.
        yes: Do not ask.
        place: Where the lake lies.
        out: How the command answers.
    """
    from flows.erase import describe_erasure, erase_images

    found = erase_images(place.place, images, source, where, dry_run=dry_run, yes=yes)
    answer(out, found, lambda: describe_erasure(found))

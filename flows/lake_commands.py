"""The commands that look at the lake and look after it."""

from typing import Annotated

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


def move(*, where: Where = HomeSettings(), out: Output = Output()) -> None:
    """Copy the home's lake, with every snapshot, to where lake.catalog and lake.data say; the old one stays.

    Args:
        where: The home, and where its lake shall lie.
        out: How the command answers.
    """
    from storage.move import move_lake

    snapshot = move_lake(where.place)
    answer(out, {"lake": where.place.lake, "snapshot": snapshot}, lambda: [f"moved to {where.place.lake}"])

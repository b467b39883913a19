"""The commands that look at the lake and look after it."""

from pathlib import Path

from flows.answer import Output, answer, table, tables
from flows.settings import HOME


def sql(query: str, /, *, at: int | None = None, home: Path = HOME, out: Output = Output()) -> None:
    """Query the lake; it cannot be changed this way.

    Args:
        query: In DuckDB's SQL, such as "from labels".
        at: A snapshot, to see the lake as it was.
        home: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake
    from storage.paths import open_home

    with read_lake(open_home(home), at) as lake:
        columns, rows = lake.read(query)
    answer(out, {"columns": columns, "rows": rows}, lambda: table(columns, rows))


def status(*, home: Path = HOME, out: Output = Output()) -> None:
    """Count what the lake holds: sources, images, recipes, features, failures, models; name the snapshot.

    Args:
        home: Where the lake lies.
        out: How the command answers.
    """
    from storage.attach import read_lake
    from storage.paths import open_home
    from storage.summary import summarize

    with read_lake(open_home(home)) as lake:
        found = summarize(lake)
    answer(out, found, lambda: tables(found))

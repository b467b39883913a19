"""DuckDB extensions from their wheels, loaded without a download."""

import contextlib
import functools
import importlib.util
import queue
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Literal

import duckdb

from storage.errors import LakeError
from storage.locations.home import Home
from storage.locations.stores import WHEELS, split_url

# DuckDB derives the name of an extension's entry point from its file name, which is different in these wheels.
LOADED_AS = {"sqlite": "sqlite_scanner", "postgres": "postgres_scanner"}

Wheels = tuple[str, ...]


def list_wheels(home: Home) -> Wheels:
    """List the wheels of the extensions that a lake needs."""
    catalog = "postgres" if home.catalog_url else "sqlite"
    return ("ducklake", catalog, *(WHEELS[split_url(home.data_url)[0]] if home.data_url else ()))


def connect(wheels: Wheels) -> duckdb.DuckDBPyConnection:
    """Return a connection to an in-memory DuckDB with these extensions loaded: an idle one, or a new one.

    Raises:
        LakeError: if a wheel is missing or was built for another DuckDB.
    """
    if idle := find_idle(wheels):
        return idle
    # Signatures would take half a second to verify, and whoever can change an installed extension can change our code.
    con = duckdb.connect(config={"allow_unsigned_extensions": True, "threads": 1})
    con.execute("SET arrow_lossless_conversion = true")  # a UUID stays one
    con.execute("SET enable_progress_bar = false")  # it would be printed to stdout, into the output
    with tempfile.TemporaryDirectory(prefix="frostline-") as folder:
        for wheel in wheels:
            here = Path(folder) / f"{LOADED_AS.get(wheel, wheel)}.duckdb_extension"
            _link(find_extension(wheel), here)
            con.execute("LOAD '{}'".format(str(here).replace("'", "''")))
    return con


def skip_pandas() -> None:
    """Keep DuckDB from importing pandas, which takes longer than all queries of most commands.

    It imports pandas at the first parameter of a query, to see whether that is a ``NaT``. For one query, this shows it
    an empty module instead. Data frames are still recognised. Call it before other threads start: one of them could
    import pandas at this moment.
    """
    if "pandas" in sys.modules:
        return
    empty = ModuleType("pandas")
    empty.__dict__.update(NaT=object(), NA=object())  # equal to no parameter
    sys.modules["pandas"] = empty
    try:
        duckdb.connect().execute("SELECT ?", [0])
    finally:
        del sys.modules["pandas"]


def recycle(con: duckdb.DuckDBPyConnection, wheels: Wheels | Literal["empty lake"]) -> None:
    """Keep a connection for the next caller: with nothing attached, by its extensions, or with an empty lake."""
    _idle_connections()[wheels].put(con)


def find_idle(wheels: Wheels | Literal["empty lake"]) -> duckdb.DuckDBPyConnection | None:
    """Take a connection that was recycled, if there is one."""
    with contextlib.suppress(queue.Empty):
        return _idle_connections()[wheels].get_nowait()
    return None


@functools.cache
def _idle_connections() -> "defaultdict[object, queue.SimpleQueue[duckdb.DuckDBPyConnection]]":
    """Return the idle connections of this process: loading extensions takes longer than most queries."""
    return defaultdict(queue.SimpleQueue)


def find_extension(wheel: str) -> Path:
    """Find the file of an extension in its wheel.

    Raises:
        LakeError: if the wheel is missing or was built for another DuckDB.
    """
    spec = importlib.util.find_spec(f"duckdb_extension_{wheel}")
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / "extensions" / f"v{duckdb.__version__}" / f"{wheel}.duckdb_extension"
        if path.exists():
            return path
    raise LakeError(
        f"DuckDB extension {wheel}",
        f"must be installed for DuckDB {duckdb.__version__}",
        f"Install duckdb-extension-{wheel}=={duckdb.__version__}",
    )


def _link(extension: Path, here: Path) -> None:
    try:
        here.symlink_to(extension)
    except OSError:  # this file system has no links
        shutil.copyfile(extension, here)

"""DuckDB's extensions from their wheels: signed builds, loaded without a download."""

import contextlib
import functools
import importlib.util
import queue
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import duckdb

from storage.errors import LakeError
from storage.locations.home import Home
from storage.locations.stores import WHEELS, split_url

# An extension's entry point is named after its file, and these wheels carry the file under another name.
LOADED_AS = {"sqlite": "sqlite_scanner", "postgres": "postgres_scanner"}

Wheels = tuple[str, ...]


def list_wheels(home: Home) -> Wheels:
    """List the extensions that a lake needs."""
    catalog = "postgres" if home.catalog_url else "sqlite"
    return ("ducklake", catalog, *(WHEELS[split_url(home.data_url)[0]] if home.data_url else ()))


def connect(wheels: Wheels) -> duckdb.DuckDBPyConnection:
    """Give an in-memory DuckDB with these extensions loaded: one that was kept, or a new one.

    Raises:
        LakeError: where a wheel is missing or was built for another DuckDB.
    """
    with contextlib.suppress(queue.Empty):
        return _idle_connections()[wheels].get_nowait()
    con = duckdb.connect()
    con.execute("SET arrow_lossless_conversion = true")  # a UUID stays one
    con.execute("SET enable_progress_bar = false")  # it would stand on stdout, among the answer
    with tempfile.TemporaryDirectory(prefix="frostline-") as folder:
        for wheel in wheels:
            here = Path(folder) / f"{LOADED_AS.get(wheel, wheel)}.duckdb_extension"
            _place(find_extension(wheel), here)
            con.execute(f"LOAD '{here}'")
    return con


def recycle(con: duckdb.DuckDBPyConnection, wheels: Wheels) -> None:
    """Keep a connection that has nothing attached for the next who needs the same extensions."""
    _idle_connections()[wheels].put(con)


@functools.cache
def _idle_connections() -> "defaultdict[Wheels, queue.SimpleQueue[duckdb.DuckDBPyConnection]]":
    """Hold idle connections for the process: loading the extensions takes longer than most work on the lake."""
    return defaultdict(queue.SimpleQueue)


def find_extension(wheel: str) -> Path:
    """Find the file of an extension in its wheel.

    Raises:
        LakeError: where the wheel is missing or was built for another DuckDB.
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


def _place(extension: Path, here: Path) -> None:
    try:
        here.symlink_to(extension)
    except OSError:  # no links on this file system
        shutil.copyfile(extension, here)

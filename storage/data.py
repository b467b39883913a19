"""Where the lake's Parquet files lie, whatever kind of place that is.

The catalog names a file of an object store by its url, and a pyarrow file system by the same without ``s3://``.
"""

from pyarrow import NativeFile, fs

from storage.paths import Home
from storage.stores import open_store, part_url


def open_data(home: Home) -> tuple[fs.FileSystem, str]:
    """Give the file system of the lake's Parquet files and their folder in it."""
    if home.data_url is None:
        return fs.LocalFileSystem(), str(home.data)
    return open_store(home.data_url), part_url(home.data_url)[1]


def open_file(home: Home, name: str) -> NativeFile:
    """Open a file of the lake, as the catalog names it, for reading."""
    system, _ = open_data(home)
    return system.open_input_file(name if home.data_url is None else part_url(name)[1])


def name_file(home: Home, path: str) -> str:
    """Name a path of the lake's file system as the catalog does."""
    return path if home.data_url is None else f"{part_url(home.data_url)[0]}://{path}"

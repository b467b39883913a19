"""Where the lake's Parquet files lie, whatever kind of place that is."""

from pyarrow import fs

from storage.paths import Home


def open_data(home: Home) -> tuple[fs.FileSystem, str]:
    """Give the file system of the lake's Parquet files and their folder in it."""
    return fs.LocalFileSystem(), str(home.data)

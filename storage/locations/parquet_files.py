"""The lake's Parquet files, in a folder or in an object store.

The catalog stores the URL of a file in an object store; a pyarrow file system wants the URL without ``s3://``.
"""

import contextlib
from collections.abc import Iterator

from pyarrow import NativeFile, fs

from storage.errors import LakeUnreachableError
from storage.locations.home import Home
from storage.locations.stores import open_store, split_url


def open_data(home: Home) -> tuple[fs.FileSystem, str]:
    """Return the file system of the lake's Parquet files, and their folder in it."""
    if home.data_url is None:
        return fs.LocalFileSystem(), str(home.data)
    return open_store(home.data_url), split_url(home.data_url)[1]


def open_file(home: Home, name: str) -> NativeFile:
    """Open a file of the lake for reading, given its path in the catalog."""
    system, _ = open_data(home)
    with explain_unreachable(f"file {name}"):
        return system.open_input_file(find_path(home, name))


def list_folder(home: Home, folder: str) -> list[fs.FileInfo]:
    """List the files below a folder of the lake's data; none if the folder does not exist.

    Raises:
        LakeUnreachableError: if the object store does not answer.
    """
    system, root = open_data(home)
    with explain_unreachable(f"data {home.data_url}"):
        infos = system.get_file_info(
            fs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        )
    return [info for info in infos if info.type == fs.FileType.File]


@contextlib.contextmanager
def explain_unreachable(value: str) -> Iterator[None]:
    """Translate the error of an object store that does not answer; other errors pass through.

    Raises:
        LakeUnreachableError: if the store does not answer.
    """
    try:
        yield
    except OSError as error:
        if "NETWORK_CONNECTION" not in str(error):  # how the AWS SDK reports it
            raise
        rule = f"the store does not answer: {error}"
        raise LakeUnreachableError(value, rule, "Check the store and the network, then run again") from error


def find_path(home: Home, name: str) -> str:
    """Return a file's path in the lake's file system, given its path in the catalog."""
    return name if home.data_url is None else split_url(name)[1]


def name_file(home: Home, path: str) -> str:
    """Return the catalog's path of a file, given its path in the lake's file system."""
    return path if home.data_url is None else f"{split_url(home.data_url)[0]}://{path}"

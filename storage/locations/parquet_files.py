"""Where the lake's Parquet files lie, whatever kind of place that is.

The catalog names a file of an object store by its url, and a pyarrow file system by the same without ``s3://``.
"""

import contextlib
from collections.abc import Iterator

from pyarrow import NativeFile, fs

from storage.errors import LakeUnreachableError
from storage.locations.home import Home
from storage.locations.stores import open_store, split_url


def open_data(home: Home) -> tuple[fs.FileSystem, str]:
    """Give the file system of the lake's Parquet files and their folder in it."""
    if home.data_url is None:
        return fs.LocalFileSystem(), str(home.data)
    return open_store(home.data_url), split_url(home.data_url)[1]


def open_file(home: Home, name: str) -> NativeFile:
    """Open a file of the lake, as the catalog names it, for reading."""
    system, _ = open_data(home)
    with explain_unreachable(f"file {name}"):
        return system.open_input_file(name if home.data_url is None else split_url(name)[1])


def list_folder(home: Home, folder: str) -> list[fs.FileInfo]:
    """List the files below a folder of the lake's data; none where it is not there.

    Raises:
        LakeUnreachableError: where the object store does not answer.
    """
    system, root = open_data(home)
    with explain_unreachable(f"data {home.data_url}"):
        infos = system.get_file_info(
            fs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        )
    return [info for info in infos if info.type == fs.FileType.File]


@contextlib.contextmanager
def explain_unreachable(value: str) -> Iterator[None]:
    """Tell a store that does not answer from a file that cannot be read.

    Raises:
        LakeUnreachableError: naming the value.
    """
    try:
        yield
    except OSError as error:
        if "NETWORK_CONNECTION" not in str(error):  # the AWS SDK's word
            raise
        rule = f"the store does not answer: {error}"
        raise LakeUnreachableError(value, rule, "Check the store and the network, run again") from error


def name_file(home: Home, path: str) -> str:
    """Name a path of the lake's file system as the catalog does."""
    return path if home.data_url is None else f"{split_url(home.data_url)[0]}://{path}"

"""Atomic writes: a file or folder appears under its name only once it is complete.

Until then it has a temporary name beside the final one, and is locked. What a killed process left under such a name is
locked by nobody; the next write to the same path deletes it.
"""

import contextlib
import glob
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.locations.locks import try_lock

SUFFIX = ".unfinished"


@contextlib.contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; at the end of the block it replaces ``path``, after an error it is deleted."""
    with _reserve(path, Path.touch) as unfinished:
        yield unfinished
        unfinished.replace(path)


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; at the end of the block it becomes ``folder``, after an error it is deleted.

    Raises:
        FileExistsError: if the folder exists by then.
    """
    with _reserve(folder, Path.mkdir) as unfinished:
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FileExistsError(error.errno, "exists already", str(folder)) from error
            raise


@contextlib.contextmanager
def _reserve(path: Path, create: Callable[[Path], object]) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{SUFFIX}")
    with create_locked(unfinished, create):
        try:
            yield unfinished
        finally:
            _delete(unfinished)


@contextlib.contextmanager
def create_locked(path: Path, create: Callable[[Path], object] = Path.touch) -> Iterator[None]:
    """Create a file or folder that is locked for the length of a block: no process can take it for a leftover."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    create(new)
    with try_lock(new):  # first locked, then renamed
        new.rename(path)
        yield


def _delete_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????{SUFFIX}"):
        with try_lock(leftover) as locked:
            if locked:
                _delete(leftover)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

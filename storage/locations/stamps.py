"""Stamps of files: whether a file has changed since, without reading it."""

from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[int, ...]
"""A file's inode, size, and times of modification and of change in nanoseconds; () if there is no such file."""


def stamp_file(path: Path) -> Stamp:
    """Return the stamp of a file or folder."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamp_files(paths: Iterable[Path]) -> dict[str, Stamp]:
    """Return the stamp of each file or folder by its path."""
    return {str(path): stamp_file(path) for path in paths}

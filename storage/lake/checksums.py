"""Checksums: what the lake's Parquet files were when they were written or first looked at."""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

import pyarrow as pa

from storage.lake.ducklake_files import list_live
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.parquet_files import explain_unreachable, name_file, open_data, open_file
from storage.progress import Progress, silent

CHUNK = 1 << 20


def digest_file(home: Home, name: str) -> tuple[int, str]:
    """Give the bytes and the SHA-256 of a file, as the catalog names it."""
    with explain_unreachable(f"file {name}"), open_file(home, name) as file:
        chunks = io.BufferedReader(file, CHUNK)  # each is a request to an object store
        return file.size(), hashlib.file_digest(chunks, "sha256").hexdigest()


def digest_files(lake: Lake, paths: Sequence[str], progress: Progress = silent) -> dict[str, tuple[int, str]]:
    """Give the bytes and the SHA-256 of live files by their paths; hashing takes every core."""
    names = [name_data_file(lake, path) for path in paths]
    found = {}
    with progress("checksums", len(paths)) as advance, ThreadPoolExecutor(os.cpu_count()) as threads:
        for path, digest in zip(paths, threads.map(partial(digest_file, lake.home), names), strict=True):
            found[path] = digest
            advance(1)
    return found


def record_checksum(lake: Lake, name: str, digest: tuple[int, str], now: datetime) -> None:
    """Record what a file is; part of the transaction that makes it one of the lake's."""
    lake.execute("INSERT INTO checksums VALUES (?, ?, ?, ?)", [_path_of(lake, name), *digest, now])


def matches_checksum(lake: Lake, name: str) -> bool:
    """Tell whether a file has a checksum, and the bytes that go with it."""
    known = lake.rows("SELECT bytes, sha256 FROM checksums WHERE path = ?", [_path_of(lake, name)])
    return digest_file(lake.home, name) in known


def name_data_file(lake: Lake, path: str) -> str:
    """Name a file below the data folder as the catalog does."""
    return name_file(lake.home, f"{open_data(lake.home)[1]}/{path}")


def record_checksums(lake: Lake, now: datetime) -> int:
    """Record the checksums of live files that have none, and forget those of files that are live no more.

    Call it where the files are known to be sound: after compaction, or when the doctor has found nothing wrong.

    Returns:
        How many files were sealed.
    """
    live = {file.path for file in list_live(lake)}
    sealed = set(lake.column("SELECT path FROM checksums"))
    digests = digest_files(lake, sorted(live - sealed))
    stale = pa.table({"path": pa.array(sorted(sealed - live), pa.string())})

    def write() -> None:
        for path, digest in digests.items():
            if not lake.value("SELECT count(*) FROM checksums WHERE path = ?", [path]):
                lake.execute("INSERT INTO checksums VALUES (?, ?, ?, ?)", [path, *digest, now])
        lake.execute("DELETE FROM checksums WHERE path IN (SELECT path FROM _stale)")

    if digests or stale.num_rows:
        with lake.temporary_tables(_stale=stale):
            lake.commit(write)
    return len(digests)


def _path_of(lake: Lake, name: str) -> str:
    """Give the path below the data folder of a file, as the catalog names it."""
    return name.removeprefix(f"{name_file(lake.home, open_data(lake.home)[1])}/")

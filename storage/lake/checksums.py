"""Checksums of the lake's Parquet files, taken when they were written or first checked."""

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
    """Return the size and the SHA-256 of a file, given its path in the catalog."""
    with explain_unreachable(f"file {name}"), open_file(home, name) as file:
        chunks = io.BufferedReader(file, CHUNK)  # each chunk is one request to an object store
        return file.size(), hashlib.file_digest(chunks, "sha256").hexdigest()


def digest_files(lake: Lake, paths: Sequence[str], progress: Progress = silent) -> dict[str, tuple[int, str]]:
    """Return the size and the SHA-256 of live files by path; hashes on every core."""
    names = [name_data_file(lake, path) for path in paths]
    digests = {}
    with progress("checksums", len(paths)) as advance, ThreadPoolExecutor(os.cpu_count()) as threads:
        for path, digest in zip(paths, threads.map(partial(digest_file, lake.home), names), strict=True):
            digests[path] = digest
            advance(1)
    return digests


def record_checksum(lake: Lake, name: str, digest: tuple[int, str], now: datetime) -> None:
    """Record the checksum of a file, within the transaction that adds it to the lake."""
    lake.execute("INSERT INTO checksums VALUES (?, ?, ?, ?)", [_relative_path(lake, name), *digest, now])


def matches_checksum(lake: Lake, name: str) -> bool:
    """Return whether a file has a checksum and still matches it."""
    recorded = lake.rows("SELECT bytes, sha256 FROM checksums WHERE path = ?", [_relative_path(lake, name)])
    return digest_file(lake.home, name) in recorded


def name_data_file(lake: Lake, path: str) -> str:
    """Return the catalog's path of a file, given its path below the data folder."""
    return name_file(lake.home, f"{open_data(lake.home)[1]}/{path}")


def record_checksums(lake: Lake, now: datetime) -> int:
    """Record the checksums of live files that have none, and delete those of files that are no longer live.

    Call it when the files are known to be intact: after compaction, or when the doctor has found nothing wrong.

    Returns:
        The number of checksums recorded.
    """
    live = {file.path for file in list_live(lake)}
    recorded = set(lake.column("SELECT path FROM checksums"))
    digests = digest_files(lake, sorted(live - recorded))
    stale = pa.table({"path": pa.array(sorted(recorded - live), pa.string())})

    def write() -> None:
        for path, digest in digests.items():
            if not lake.value("SELECT count(*) FROM checksums WHERE path = ?", [path]):
                lake.execute("INSERT INTO checksums VALUES (?, ?, ?, ?)", [path, *digest, now])
        lake.execute("DELETE FROM checksums WHERE path IN (SELECT path FROM _stale)")

    if digests or stale.num_rows:
        with lake.temporary_tables(_stale=stale):
            lake.commit(write)
    return len(digests)


def _relative_path(lake: Lake, name: str) -> str:
    """Return a file's path below the data folder, given its path in the catalog."""
    return name.removeprefix(f"{name_file(lake.home, open_data(lake.home)[1])}/")

"""Checksums: what the lake's Parquet files were when they were written."""

import hashlib
from datetime import datetime

from storage.data import open_data
from storage.lake import Lake

CHUNK = 1 << 20


def digest_file(lake: Lake, path: str) -> tuple[int, str]:
    """Give the size and the SHA-256 of a file below the data folder."""
    system, folder = open_data(lake.home)
    hashed, size = hashlib.sha256(), 0
    with system.open_input_stream(f"{folder}/{path}") as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    return size, hashed.hexdigest()


def seal(lake: Lake, path: str, now: datetime) -> None:
    """Record what a file is; part of the transaction that names it."""
    lake.execute("INSERT INTO checksums VALUES (?, ?, ?, ?)", [path, *digest_file(lake, path), now])

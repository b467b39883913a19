"""Read vectors from the lake's files: DuckDB finds the file and row of each, pyarrow reads them.

DuckDB handles deletes, time travel and conditions, so that no other code depends on how DuckLake stores them. Vectors
go straight from the files into one matrix.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from storage.errors import LakeError
from storage.lake.lake import Lake
from storage.locations.parquet_files import explain_unreachable, open_data
from storage.plural import pluralize
from storage.vectors.feature_file import Matrix, pack_uuids

Indices = npt.NDArray[np.int64]
RUN = 8  # row groups to read at once: 4 MB per thread
INLINED = "ducklake_inlined_data"  # the prefix of DuckLake's file name for rows that are in the catalog itself


@dataclass(frozen=True)
class FileRows:
    """Rows of one file: their numbers, ascending, and the position of each in the result."""

    file: str
    rows: Indices
    positions: Indices


@dataclass(frozen=True)
class RowGroups:
    """Rows of some row groups of one file: row numbers within these groups, ascending, and positions in the result.

    ``footer`` is that of the file; None for rows in the catalog.
    """

    file: str
    numbers: tuple[int, ...]
    rows: Indices
    positions: Indices
    footer: pq.FileMetaData | None


def at_snapshot(at: int | None) -> str:
    """Return the SQL that follows a table's name to read it at a snapshot."""
    return "" if at is None else f" AT (VERSION => {int(at)})"


def locate_rows(lake: Lake, wanted: str, parameters: Sequence[object]) -> tuple[pa.Array, tuple[FileRows, ...]]:
    """Locate the features that a query selects with image_id, filename, file_row_number and position, from 0.

    Returns:
        The image ids by position, as Arrow UUIDs, and the rows of each file, ordered by first position.
    """
    found = lake.table(
        f"""SELECT filename, list({{'image_id': image_id, 'row': file_row_number, 'position': position}}) AS places
            FROM ({wanted}) GROUP BY filename""",
        parameters,
    )
    places = [part.values.flatten() for part in found["places"]]
    ids = np.zeros((max((int(part[2].to_numpy().max()) + 1 for part in places), default=0), 16), np.uint8)
    pieces = []
    for name, (image_ids, rows, positions) in zip(found["filename"].to_pylist(), places, strict=True):
        ids[positions.to_numpy()] = to_bytes(image_ids)
        order = np.argsort(rows.to_numpy(), kind="stable")
        pieces.append(FileRows(name, rows.to_numpy()[order], positions.to_numpy()[order]))
    pieces.sort(key=lambda piece: int(piece.positions.min()))
    return pack_uuids(ids), tuple(pieces)


def locate_whole_files(lake: Lake, at: int | None, recipe_id: str) -> tuple[pa.Array, tuple[FileRows, ...]] | None:
    """Locate all features of a recipe, if all rows of all its files are selected; None otherwise.

    All rows of a file are selected if DuckDB reads as many from it as it has: none is deleted or of another snapshot.

    Returns:
        The image ids, ascending, as Arrow UUIDs, and the rows of each file, as :func:`locate_rows` does.
    """
    counts = lake.rows(
        f"SELECT filename, count(*) FROM features{at_snapshot(at)} WHERE recipe_id = ? GROUP BY ALL", [recipe_id]
    )
    if not counts or any(name.startswith(INLINED) for name, _ in counts):
        return None
    system, _ = open_data(lake.home)
    files = [(name, _open(system, name)) for name, _ in counts]
    if any(file.metadata.num_rows != rows for (_, file), (_, rows) in zip(files, counts, strict=True)):
        return None
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = list(threads.map(_read_ids, files))
    parts.sort(key=lambda part: part[1][0].tobytes())
    raw = np.concatenate([ids for _, ids in parts]) if parts else np.empty((0, 16), np.uint8)
    order, places = _sort(raw), np.empty(len(raw), np.int64)
    places[order] = np.arange(len(raw))
    ends = np.cumsum([len(ids) for _, ids in parts])[:-1]
    pieces = [
        FileRows(name, np.arange(len(ids)), positions)
        for (name, ids), positions in zip(parts, np.split(places, ends), strict=True)
    ]
    pieces.sort(key=lambda piece: int(piece.positions.min()))
    return pack_uuids(raw[order]), tuple(pieces)


def gather_vectors(lake: Lake, at: int | None, pieces: Sequence[FileRows], dim: int) -> Matrix:
    """Read rows of files into one matrix [n, dim], float32, contiguous; row groups are decoded on every core.

    Raises:
        LakeError: if a file cannot be read.
    """
    matrix = _allocate(sum(len(piece.rows) for piece in pieces), dim)
    system, _ = open_data(lake.home)

    def fill(group: RowGroups) -> None:
        matrix[_slice(group.positions)] = read_row_groups(lake, at, group, dim)

    groups = list(list_row_groups(system, pieces, RUN))
    for group in groups:
        if group.footer is None:  # threads cannot share a connection
            fill(group)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(fill, (group for group in groups if group.footer)))
    return matrix


def list_row_groups(system: fs.FileSystem, pieces: Sequence[FileRows], run: int = 1) -> Iterator[RowGroups]:
    """Split rows of files by the row groups that contain them, ``run`` groups at a time."""
    for piece in pieces:
        if piece.file.startswith(INLINED):
            yield RowGroups(piece.file, (), piece.rows, piece.positions, None)
            continue
        footer = _open(system, piece.file).metadata
        sizes = np.array([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        cuts = np.searchsorted(piece.rows, ends)
        counts = np.diff(cuts)
        for numbers in _split(np.flatnonzero(counts), run):
            part = slice(cuts[numbers[0]], cuts[numbers[-1] + 1])
            left_out = ends[numbers] - np.cumsum(sizes[numbers]) + sizes[numbers]
            rows = piece.rows[part] - np.repeat(left_out, counts[numbers])
            yield RowGroups(piece.file, tuple(numbers.tolist()), rows, piece.positions[part], footer)


def read_row_groups(lake: Lake, at: int | None, group: RowGroups, dim: int) -> Matrix:
    """Read the selected vectors of row groups, or of the catalog, [n, dim], float32.

    Raises:
        LakeError: if the file cannot be read, or its vectors have another length.
    """
    return read_rows(open_data(lake.home)[0], group, dim) if group.footer else _read_inlined(lake, at, group, dim)


def read_rows(system: fs.FileSystem, group: RowGroups, dim: int) -> Matrix:
    """Read the selected vectors of row groups of a file, [n, dim], float32; needs no catalog.

    Raises:
        LakeError: if the file cannot be read, or its vectors have another length.
    """
    file = _open(system, group.file, group.footer)
    with _explain(group.file):
        vectors = file.read_row_groups(group.numbers, columns=["vector"], use_threads=False)["vector"]
    parts = [chunk.flatten().to_numpy() for chunk in vectors.chunks]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(flat) != len(vectors) * dim:
        raise _unreadable(group.file, f"its vectors do not have {pluralize(dim, 'number')} each")
    return cast("Matrix", flat.reshape(len(vectors), dim)[_slice(group.rows)])


def to_bytes(image_ids: pa.Array) -> npt.NDArray[np.uint8]:
    """View Arrow UUIDs as bytes [n, 16], without a copy."""
    raw = image_ids.storage
    whole = np.frombuffer(raw.buffers()[1], np.uint8).reshape(-1, 16)
    return whole[raw.offset : raw.offset + len(raw)]


def _allocate(n: int, dim: int) -> Matrix:
    """Allocate a matrix from Arrow's pool, which reuses pages; the system would have to clear new ones."""
    return np.frombuffer(pa.allocate_buffer(n * dim * 4), np.float32).reshape(n, dim)


def _split(numbers: Indices, size: int) -> list[Indices]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _read_ids(named: tuple[str, pq.ParquetFile]) -> tuple[str, npt.NDArray[np.uint8]]:
    name, file = named
    with _explain(name):
        return name, to_bytes(file.read(columns=["image_id"], use_threads=False)["image_id"].combine_chunks())


def _sort(ids: npt.NDArray[np.uint8]) -> Indices:
    """Return the indices that sort ids [n, 16] by their bytes. Shards are ranges of ids, so files are often sorted."""
    high, low = np.ascontiguousarray(ids).view(">u8").T.astype(np.uint64)
    if np.all((high[:-1] < high[1:]) | (high[:-1] == high[1:]) & (low[:-1] < low[1:])):
        return np.arange(len(ids))
    return np.lexsort((low, high))


def _read_inlined(lake: Lake, at: int | None, group: RowGroups, dim: int) -> Matrix:
    found = lake.table(
        f"SELECT file_row_number AS row, vector FROM features{at_snapshot(at)} WHERE filename = ? ORDER BY row",
        [group.file],
    )
    vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    return cast("Matrix", vectors[np.searchsorted(found["row"].to_numpy(), group.rows)])


def _slice(indices: Indices) -> Indices | slice:
    """Return consecutive indices as a slice, which copies less."""
    first, n = int(indices[0]), len(indices)
    return slice(first, first + n) if np.array_equal(indices, np.arange(first, first + n)) else indices


def _open(system: fs.FileSystem, name: str, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    with _explain(name):
        return pq.ParquetFile(name.rpartition("://")[2], filesystem=system, metadata=footer)


@contextlib.contextmanager
def _explain(name: str) -> Iterator[None]:
    try:
        with explain_unreachable(f"file {name}"):
            yield
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, str(error)) from error


def _unreadable(name: str, reason: str) -> LakeError:
    return LakeError(f"file {name}", f"cannot be read: {reason}", "Run `frostline doctor`")

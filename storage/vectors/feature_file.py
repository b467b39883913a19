"""A shard of vectors as a Parquet file, which a worker writes without the catalog."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from storage.errors import LakeError
from storage.locations.atomic import create_locked
from storage.locations.home import Home
from storage.locations.parquet_files import name_file, open_data
from storage.names import SourceName

# Bytes of vectors in a row group, all of which a lookup of one vector reads. Half as much takes a fifth more time to
# read a whole file, twice as much doubles the time of a lookup, and neither makes the files smaller.
ROW_GROUP = 1 << 19

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """An image that could not be embedded: at which stage, and why."""

    image_id: str
    path: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """A shard of features that is computed but not committed yet.

    ``file`` is its path in the catalog's notation, None if every image failed. ``calls`` is the number of images that
    went through the backbone; ``seconds`` is from opening the first file to closing the Parquet file; ``bytes`` were
    read; ``waits`` are the seconds for which each stage was the bottleneck. ``finished`` is the number of images that
    were embedded or failed; others of its lease were left for the next shard.
    """

    recipe_id: str
    source: SourceName
    file: str | None
    failures: tuple[Failure, ...]
    calls: int
    seconds: float
    bytes: int = 0
    waits: dict[str, float] = field(default_factory=dict)
    finished: int = 0


class FeatureFile:
    """A Parquet file of vectors in the lake's data folder, written in batches. It is added to the lake later.

    Byte-stream-split groups the last bytes of the mantissas, which rounding to float16 has zeroed, and zstd removes
    them. The file has the suffix ``.unfinished`` until it is complete, is locked until then, and is deleted after an
    error. In an object store it appears when its upload is complete.
    """

    def __init__(self, home: Home, recipe_id: str, dim: int) -> None:
        self._fs, folder = open_data(home)
        self._folder, name = f"{folder}/main/features/recipe_id={recipe_id}", str(uuid.uuid4())
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._path = f"{self._folder}/{name}.parquet"
        self._unfinished = f"{self._folder}/{name}.unfinished" if self._local else self._path
        self._home = home
        vector = pa.list_(pa.float32(), dim)
        self._schema = pa.schema([("image_id", pa.uuid()), ("vector", vector)])
        self._pending: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None
        self._open = contextlib.ExitStack()
        self.path: str | None = None
        """The path in the catalog's notation once the file is complete; None if nothing was written."""

    def write(self, image_ids: Sequence[str], vectors: Matrix) -> None:
        """Add n vectors [n, dim], float32, of n images.

        Raises:
            LakeError: if they cannot be written.
        """
        if not len(image_ids):
            return
        flat = pa.array(np.ascontiguousarray(vectors).ravel())
        columns = [to_uuids(image_ids), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
        self._pending.append(pa.record_batch(columns, schema=self._schema))
        if sum(batch.nbytes for batch in self._pending) >= ROW_GROUP:
            with self._explain():
                self._flush()

    def __enter__(self) -> Self:
        """Enter a ``with`` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the file and rename it; after an error, delete it."""
        try:
            if kind is None and (self._pending or self._writer):
                with self._explain():
                    self._finish()
        finally:
            if self.path is None:
                self._drop()
            self._open.close()

    def _flush(self) -> None:
        if self._writer is None:
            if self._local:
                self._open.enter_context(create_locked(Path(self._unfinished)))
            self._writer = pq.ParquetWriter(
                self._unfinished,
                self._schema,
                filesystem=self._fs,
                compression="zstd",
                use_dictionary=False,
                use_byte_stream_split=["vector.list.element"],
            )
        rows = max(1, ROW_GROUP // self._schema.field("vector").type.list_size // 4)
        self._writer.write_table(pa.Table.from_batches(self._pending), row_group_size=rows)
        self._pending = []

    def _finish(self) -> None:
        if self._pending:
            self._flush()
        if self._writer:
            self._writer.close()
        if self._local:
            self._fs.move(self._unfinished, self._path)
        self.path = name_file(self._home, self._path)

    def _drop(self) -> None:
        if self._writer:
            with contextlib.suppress(OSError):  # closing writes, and the disk may be full
                self._writer.close()
        with contextlib.suppress(OSError):
            self._fs.delete_file(self._unfinished)

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            remedy = "Make room on the disk" if self._local else "Check the bucket and the credentials"
            raise LakeError(
                f"features {name_file(self._home, self._folder)}",
                f"cannot be written: {reason}",
                f"{remedy}, then run again: committed features are kept",
            ) from error


def write_features(home: Home, recipe_id: str, image_ids: Sequence[str], vectors: Matrix) -> str:
    """Write vectors [n, dim], float32, of one image or more as a file of features, which is not part of the lake yet.

    Returns:
        The path of the file in the catalog's notation.

    Raises:
        LakeError: if they cannot be written.
    """
    with FeatureFile(home, recipe_id, vectors.shape[1]) as file:
        file.write(image_ids, vectors)
    return cast("str", file.path)


def write_rows(home: Home, recipe_id: str, rows: pa.Table) -> str:
    """Write rows of ``image_id`` and ``vector`` as :func:`write_features` does."""
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    return write_features(home, recipe_id, [str(image_id) for image_id in rows["image_id"].to_pylist()], vectors)


def measure_distances(vectors: Matrix, references: Matrix) -> Matrix:
    """Return the distance of each vector [n, dim] from its reference, relative to the reference's length: [n]."""
    lengths = np.maximum(np.linalg.norm(references, axis=1), 1e-12)
    distances: Matrix = np.linalg.norm(vectors - references, axis=1) / lengths
    return distances


def to_uuids(image_ids: Sequence[str]) -> pa.Array:
    """Convert ids from text to Arrow UUIDs."""
    return pack_uuids(bytes.fromhex("".join(image_ids).replace("-", "")))


def pack_uuids(raw: bytes | npt.NDArray[np.uint8]) -> pa.Array:
    """Convert ids, 16 bytes each, to Arrow UUIDs."""
    buffer = pa.py_buffer(raw)
    binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), buffer.size // 16, [None, buffer])
    return pa.ExtensionArray.from_storage(pa.uuid(), binary)

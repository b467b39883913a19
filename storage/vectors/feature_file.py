"""A shard of vectors as a Parquet file, which a worker writes without knowing the catalog."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from storage.errors import LakeError
from storage.locations.home import Home
from storage.locations.parquet_files import name_file, open_data
from storage.names import SourceName

# Bytes of vectors that are compressed together: what reading one of them costs. Half of it takes a fifth more time to
# read whole, twice as much takes twice the time to look one vector up, and neither makes the files smaller.
ROW_GROUP = 1 << 19

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """An image that gave no feature: at which stage, and why."""

    image_id: str
    path: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """A piece of embedding that is done and not yet committed.

    ``file``, as the catalog takes it, is None where every image failed; ``calls`` counts the images that went through
    the backbone; ``seconds`` from the first file opened to the Parquet file closed; ``bytes`` were read; ``waits`` are
    the seconds in which each stage was the one that the others waited for.
    """

    recipe_id: str
    source: SourceName
    file: str | None
    failures: tuple[Failure, ...]
    calls: int
    seconds: float
    bytes: int = 0
    waits: dict[str, float] = field(default_factory=dict)


class FeatureFile:
    """A Parquet file of vectors in the lake's folder, written piece by piece; not part of the lake when it is done.

    Byte-stream-split gathers the mantissa's last bytes, which rounding to float16 has zeroed, and zstd removes them.
    A file under its own name is whole: until then it is called ``.unfinished``, and what breaks off is removed.
    In an object store it appears when its upload is complete.
    """

    def __init__(self, home: Home, recipe_id: str, dim: int) -> None:
        self._fs, folder = open_data(home)
        self._folder, name = f"{folder}/main/features/recipe_id={recipe_id}", str(uuid.uuid4())
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._place = f"{self._folder}/{name}.parquet"
        self._unfinished = f"{self._folder}/{name}.unfinished" if self._local else self._place
        self._home = home
        vector = pa.list_(pa.float32(), dim)
        self._schema = pa.schema([("image_id", pa.uuid()), ("vector", vector)])
        self._waiting: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None
        self.path: str | None = None
        """Where it lies once it is whole, as the catalog takes it; None where nothing was written."""

    def write(self, image_ids: Sequence[str], vectors: Matrix) -> None:
        """Add n vectors [n, dim], float32, under n ids.

        Raises:
            LakeError: where the disk does not take them.
        """
        if not len(image_ids):
            return
        flat = pa.array(np.ascontiguousarray(vectors).ravel())
        columns = [to_uuids(image_ids), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
        self._waiting.append(pa.record_batch(columns, schema=self._schema))
        if sum(batch.nbytes for batch in self._waiting) >= ROW_GROUP:
            with self._explain():
                self._flush()

    def __enter__(self) -> Self:
        """Give the file to a ``with`` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it under its own name; after an error, remove what there is."""
        try:
            if kind is None and (self._waiting or self._writer):
                with self._explain():
                    self._finish()
        finally:
            if self.path is None:
                self._drop()

    def _flush(self) -> None:
        if self._writer is None:
            if self._local:
                self._fs.create_dir(self._folder)
            self._writer = pq.ParquetWriter(
                self._unfinished,
                self._schema,
                filesystem=self._fs,
                compression="zstd",
                use_dictionary=False,
                use_byte_stream_split=["vector.list.element"],
            )
        rows = max(1, ROW_GROUP // self._schema.field("vector").type.list_size // 4)
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=rows)
        self._waiting = []

    def _finish(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer:
            self._writer.close()
        if self._local:
            self._fs.move(self._unfinished, self._place)
        self.path = name_file(self._home, self._place)

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
            mend = "Make room on the disk" if self._local else "Check the bucket and the credentials"
            raise LakeError(
                f"features {name_file(self._home, self._folder)}",
                f"cannot be written: {reason}",
                f"{mend}, then run again: what was committed stays",
            ) from error


def write_features(home: Home, recipe_id: str, image_ids: Sequence[str], vectors: Matrix) -> str:
    """Write vectors [n, dim], float32, of one image or more as a file of features, not yet part of the lake.

    Returns:
        The file, as the catalog takes it.

    Raises:
        LakeError: where the disk does not take them.
    """
    with FeatureFile(home, recipe_id, vectors.shape[1]) as file:
        file.write(image_ids, vectors)
    return cast("str", file.path)


def write_rows(home: Home, recipe_id: str, rows: pa.Table) -> str:
    """Write rows of ``image_id`` and ``vector`` as :func:`write_features` does."""
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    return write_features(home, recipe_id, [str(image_id) for image_id in rows["image_id"].to_pylist()], vectors)


def measure_distances(vectors: Matrix, known: Matrix) -> Matrix:
    """Give how far each vector [n, dim] lies from the known one, in lengths of that: [n]."""
    far: Matrix = np.linalg.norm(vectors - known, axis=1) / np.maximum(np.linalg.norm(known, axis=1), 1e-12)
    return far


def to_uuids(image_ids: Sequence[str]) -> pa.Array:
    """Write ids as Arrow UUIDs."""
    return pack_uuids(bytes.fromhex("".join(image_ids).replace("-", "")))


def pack_uuids(raw: bytes | npt.NDArray[np.uint8]) -> pa.Array:
    """Take ids, 16 bytes each, as Arrow UUIDs."""
    buffer = pa.py_buffer(raw)
    binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), buffer.size // 16, [None, buffer])
    return pa.ExtensionArray.from_storage(pa.uuid(), binary)

"""A shard of vectors as a Parquet file, which a worker writes without knowing the catalog."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.paths import Home

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

    ``file`` is None where every image failed; ``calls`` counts the images that went through the backbone; ``seconds``
    from the first file opened to the Parquet file closed.
    """

    recipe_id: str
    source: str
    file: Path | None
    failures: tuple[Failure, ...]
    calls: int
    seconds: float


def write_features(home: Home, recipe_id: str, image_ids: Sequence[str], vectors: Matrix) -> Path:
    """Write vectors as one Parquet file of the lake's folder, not yet part of the lake.

    Byte-stream-split gathers the mantissa's last bytes, which rounding to float16 has zeroed, and zstd removes them.

    Args:
        home: The home of the lake.
        recipe_id: The recipe of the vectors.
        image_ids: n UUIDs.
        vectors: [n, dim], float32.
    """
    folder = home.data / "main" / "features" / f"recipe_id={recipe_id}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4()}.parquet"
    unfinished = path.with_suffix(".unfinished")
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    table = pa.table(
        {"image_id": to_uuids(image_ids), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    )
    leaf = ["vector.list.element"]
    try:
        pq.write_table(table, unfinished, compression="zstd", use_dictionary=False, use_byte_stream_split=leaf)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path


def to_uuids(image_ids: Sequence[str]) -> pa.Array:
    """Write ids as Arrow UUIDs."""
    raw = pa.array([uuid.UUID(image_id).bytes for image_id in image_ids], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), raw)

"""Arrow columns from Python lists, without pyarrow's conversion, which imports pandas and looks at each value."""

from array import array
from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def to_int64(numbers: Sequence[int]) -> pa.Array:
    """Convert integers.

    Raises:
        OverflowError: if one needs more than 64 bits.
    """
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(array("q", numbers))])


def to_text(texts: Sequence[str]) -> pa.Array:
    """Convert texts, all together shorter than 2 GiB."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64).astype(np.int32)
    return _make_text(ends, b"".join(encoded))


def repeat_text(text: str | None, count: int) -> pa.Array:
    """Repeat one text, or null."""
    if text is None:
        return pa.nulls(count, pa.string())
    encoded = text.encode()
    return _make_text(np.arange(count + 1, dtype=np.int32) * np.int32(len(encoded)), encoded * count)


def _make_text(ends: np.ndarray, data: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])

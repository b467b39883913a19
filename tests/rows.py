"""Lakes with rows in them, made without a backbone: image number n has the id n and a vector of its own."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from storage.lake.lake import Lake
from storage.names import SourceName
from storage.tables.features import commit_shard
from storage.vectors.feature_file import Matrix, Shard, write_features

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = "r" * 32
DIM = 16
LABELLED = "('0x' || right(image_id::VARCHAR, 6))::INT"
"""The number of a row's image, in SQL."""


def name(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


def make_vectors(numbers: Iterable[int], dim: int = DIM) -> Matrix:
    """Draw a vector for each image, always the same for one number, rounded as the store has it."""
    drawn = [np.random.default_rng(number).standard_normal(dim) for number in numbers]
    vectors: Matrix = np.array(drawn).astype(np.float16).astype(np.float32)
    return vectors


def add_features(lake: Lake, numbers: Iterable[int], recipe: str = RECIPE) -> None:
    """Commit a shard of features."""
    numbers = list(numbers)
    file = write_features(lake.home, recipe, [name(number) for number in numbers], make_vectors(numbers))
    commit_shard(lake, Shard(recipe, SourceName("photos"), file, (), len(numbers), 1.0), NOW)


def label(lake: Lake, numbers: Iterable[int], class_: str) -> None:
    """Commit files, images and labels of one class."""
    label_all(lake, {class_: numbers})


def label_all(lake: Lake, classes: Mapping[str, Iterable[int]]) -> None:
    """Commit files, images and labels of several classes at once; an image is in one of them."""
    rows = [(name(number), class_) for class_, numbers in classes.items() for number in numbers]
    ids = pa.table({"id": [image_id for image_id, _ in rows], "class": [class_ for _, class_ in rows]})

    def write() -> None:
        lake.execute("INSERT INTO images SELECT id::UUID, 'PNG', 8, 8, 'RGB', 99, ?, 1 FROM _ids", [NOW])
        files = "SELECT 'photos', class || '/' || id, 99, 1, id::UUID FROM _ids"
        lake.execute(f"INSERT INTO files (source, path, bytes, mtime_ns, image_id) {files}")
        lake.execute("INSERT INTO labels SELECT 'photos', id::UUID, class, 'photos', ? FROM _ids", [NOW])

    with lake.temporary_tables(_ids=ids):
        lake.commit(write)

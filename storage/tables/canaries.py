"""The canaries table: probe images with the vectors that they had when their recipe was first used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from storage.lake.erased import list_survivors
from storage.lake.lake import Lake
from storage.names import SourceName
from storage.vectors.feature_file import Matrix


@dataclass(frozen=True)
class Probe:
    """An image to embed again for comparison. For an image of the lake, ``image`` is None and ``name`` is its id."""

    name: str
    image: bytes | None


@dataclass(frozen=True)
class Canaries:
    """Probes with their vectors [n, dim], float32, and what computed them."""

    probes: tuple[Probe, ...]
    vectors: Matrix
    tolerance: float
    made_with: dict[str, str]
    images_per_second: float


def find_canaries(lake: Lake, recipe_id: str) -> Canaries | None:
    """Read the canaries of a recipe; None if it has none yet."""
    rows = lake.rows(
        "SELECT probe, image, vector, tolerance, made_with, images_per_second FROM canaries WHERE recipe_id = ? "
        "ORDER BY probe",
        [recipe_id],
    )
    if not rows:
        return None
    probes = tuple(Probe(name, image) for name, image, *_ in rows)
    vectors = np.array([row[2] for row in rows], np.float32)
    return Canaries(probes, vectors, rows[0][3], json.loads(rows[0][4]), rows[0][5])


def save_canaries(lake: Lake, recipe_id: str, canaries: Canaries, now: datetime) -> None:
    """Record the canaries of a recipe, unless another run was first."""
    table = pa.table(
        {
            "probe": [probe.name for probe in canaries.probes],
            "image": pa.array([probe.image for probe in canaries.probes], pa.binary()),
            "vector": pa.array(list(canaries.vectors), pa.list_(pa.float32())),
        }
    )
    made_with = json.dumps(canaries.made_with, sort_keys=True)
    values = [recipe_id, canaries.tolerance, made_with, canaries.images_per_second, now]

    def write() -> None:
        kept = list_survivors(lake, "TRY_CAST(probe AS UUID)")
        lake.execute(
            f"""INSERT INTO canaries SELECT $1, probe, image, vector, $2, $3, $4, $5 FROM _canaries
                WHERE NOT EXISTS (FROM canaries WHERE recipe_id = $1) AND (image IS NOT NULL OR {kept})""",
            values,
        )

    with lake.temporary_tables(_canaries=table):
        lake.commit(write)


def find_first_images(lake: Lake, source: SourceName, count: int) -> Sequence[str]:
    """Find the first images of a source, by time and then by id."""
    return lake.column(
        """SELECT image_id::VARCHAR FROM images WHERE image_id IN (SELECT image_id FROM files WHERE source = ?)
           ORDER BY first_seen, image_id LIMIT ?""",
        [source, count],
    )

"""Canaries in the lake: probe images with the vectors that they had when their recipe was first used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from storage.lake.lake import Lake
from storage.names import SourceName
from storage.vectors.feature_file import Matrix


@dataclass(frozen=True)
class Probe:
    """An image to embed again and again; ``image`` is None where it is one of the lake's, ``name`` then its id."""

    name: str
    image: bytes | None


@dataclass(frozen=True)
class Canaries:
    """Probes, their vectors [n, dim], float32, and the circumstances under which they were made."""

    probes: tuple[Probe, ...]
    vectors: Matrix
    tolerance: float
    made_with: dict[str, str]
    images_per_second: float


def find_canaries(lake: Lake, recipe_id: str) -> Canaries | None:
    """Read a recipe's canaries; None where it has none yet."""
    found = lake.rows(
        "SELECT probe, image, vector, tolerance, made_with, images_per_second FROM canaries WHERE recipe_id = ? "
        "ORDER BY probe",
        [recipe_id],
    )
    if not found:
        return None
    probes = tuple(Probe(name, image) for name, image, *_ in found)
    vectors = np.array([row[2] for row in found], np.float32)
    return Canaries(probes, vectors, found[0][3], json.loads(found[0][4]), found[0][5])


def save_canaries(lake: Lake, recipe_id: str, made: Canaries, now: datetime) -> None:
    """Record a recipe's canaries, unless another run was first."""
    table = pa.table(
        {
            "probe": [probe.name for probe in made.probes],
            "image": pa.array([probe.image for probe in made.probes], pa.binary()),
            "vector": pa.array(list(made.vectors), pa.list_(pa.float32())),
        }
    )
    given = [recipe_id, made.tolerance, json.dumps(made.made_with, sort_keys=True), made.images_per_second, now]
    with lake.temporary_tables(_made=table):
        lake.commit(
            lambda: lake.execute(
                """INSERT INTO canaries SELECT $1, probe, image, vector, $2, $3, $4, $5 FROM _made
                   WHERE NOT EXISTS (FROM canaries WHERE recipe_id = $1)""",
                given,
            )
        )


def find_first_images(lake: Lake, source: SourceName, count: int) -> Sequence[str]:
    """Find the images of a source that came first, as far as they can be told apart."""
    return lake.column(
        """SELECT image_id::VARCHAR FROM images WHERE image_id IN (SELECT image_id FROM files WHERE source = ?)
           ORDER BY first_seen, image_id LIMIT ?""",
        [source, count],
    )

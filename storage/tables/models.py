"""The models and predictions tables: registered versions and what they predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from storage.lake.lake import Lake
from storage.names import ModelName, SourceName
from storage.tables.trainings import Training, list_trainings


@dataclass(frozen=True)
class Version:
    """A model version in the registry."""

    name: ModelName
    version: int
    training_id: str
    run_id: str
    alias: str | None


def find_registered(lake: Lake, name: ModelName, version: int) -> Training | None:
    """Find the training of a model version."""
    condition = "training_id IN (SELECT training_id FROM models WHERE name = ? AND version = ?)"
    return next(iter(list_trainings(lake, condition, [name, version])), None)


def list_predictable(lake: Lake, sources: Sequence[SourceName], recipe_id: str) -> list[str]:
    """List the images of some sources that have a feature, ordered by image_id."""
    return lake.column(
        """SELECT DISTINCT image_id::VARCHAR AS id FROM files WHERE source IN (SELECT unnest(?))
           AND image_id IN (SELECT image_id FROM features WHERE recipe_id = ?) ORDER BY id""",
        [list(sources), recipe_id],
    )


def find_version(lake: Lake, training_id: str, name: ModelName) -> Version | None:
    """Find the newest version of a model that was made from a training."""
    found = lake.rows(
        """SELECT name, version, training_id, run_id, alias FROM models WHERE training_id = ? AND name = ?
           ORDER BY version DESC LIMIT 1""",
        [training_id, name],
    )
    return Version(*found[0]) if found else None


def save_version(lake: Lake, version: Version, predictions: pa.Table, now: datetime) -> None:
    """Record a registered version with its predictions: image_id as text, class, probability."""

    def write() -> None:
        lake.execute("DELETE FROM models WHERE name = ? AND version = ?", [version.name, version.version])
        lake.execute("DELETE FROM predictions WHERE name = ? AND version = ?", [version.name, version.version])
        row = [version.name, version.version, version.training_id, version.run_id, version.alias, now]
        lake.execute("INSERT INTO models VALUES (?, ?, ?, ?, ?, ?)", row)
        erased = lake.value("SELECT count(*) FROM erasures")  # one of the images may have been erased meanwhile
        kept = "image_id::UUID IN (SELECT image_id FROM images)" if erased else "true"
        lake.execute(
            f"""INSERT INTO predictions SELECT ?, ?, image_id::UUID, class, probability, ? FROM _predictions
                WHERE {kept}""",
            [version.name, version.version, now],
        )

    with lake.temporary_tables(_predictions=predictions):
        lake.commit(write)

"""The tables of registered models: versions, predictions, promotions, and the rows that the gate compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from storage.lake.erased import list_survivors
from storage.lake.lake import Lake
from storage.names import ModelName, SourceName
from storage.tables.trainings import Training, find_training, list_trainings
from storage.vectors.feature_file import to_uuids

KEY = "name = ? AND registry = ? AND version = ?"


@dataclass(frozen=True)
class Version:
    """A model version in the registry; ``registry`` is the identity of the registered model there."""

    name: ModelName
    version: int
    training_id: str
    run_id: str
    alias: str | None
    registry: str

    @property
    def key(self) -> list[object]:
        """The values that :data:`KEY` compares."""
        return [self.name, self.registry, self.version]


def find_registered(lake: Lake, name: ModelName, version: int) -> Training | None:
    """Find the training of a model version; of the newest registry, should several have the version."""
    condition = """training_id = (SELECT arg_max(training_id, registered_at) FROM models
                                  WHERE name = ? AND version = ?)"""
    return next(iter(list_trainings(lake, condition, [name, version])), None)


def list_predictable(lake: Lake, sources: Sequence[SourceName], recipe_id: str, views: Sequence[str] = ()) -> list[str]:
    """List the images of some sources that a head can predict, ordered by image_id.

    They have a feature under its recipe and, for each of the ``views`` that its answers average over, one as well or a
    failure: the image's own vector stands in for a view that failed, but not for one that nobody has computed.
    """
    return lake.column(
        f"""SELECT DISTINCT image_id::VARCHAR AS id FROM files WHERE source IN (SELECT unnest(?))
            AND {_is_ready(views)} ORDER BY id""",
        [list(sources), recipe_id, *_repeat(views)],
    )


def list_unpredicted(lake: Lake, sources: Sequence[SourceName], training: Training, version: Version) -> list[str]:
    """List the images that :func:`list_predictable` lists for a training, less those that a version has predicted."""
    return lake.column(
        f"""SELECT DISTINCT image_id::VARCHAR AS id FROM files WHERE source IN (SELECT unnest(?))
            AND {_is_ready(training.averaged)}
            AND image_id NOT IN (SELECT image_id FROM predictions WHERE {KEY}) ORDER BY id""",
        [list(sources), training.recipe_id, *_repeat(training.averaged), *version.key],
    )


def count_unpredictable(lake: Lake, sources: Sequence[SourceName], training: Training) -> int:
    """Count the images of some sources that a training's head cannot predict, although none of them failed."""
    return int(
        lake.value(
            f"""SELECT count(DISTINCT image_id) FROM files WHERE source IN (SELECT unnest(?)) AND image_id IS NOT NULL
                AND NOT ({_is_ready(training.averaged)})
                AND image_id NOT IN (SELECT image_id FROM failures WHERE recipe_id = ? AND image_id IS NOT NULL)""",
            [list(sources), training.recipe_id, *_repeat(training.averaged), training.recipe_id],
        )
    )


def _is_ready(views: Sequence[str]) -> str:
    """Return the SQL condition of :func:`list_predictable`; its parameters are the recipe, then each view twice."""
    computed = "image_id IN (SELECT image_id FROM features WHERE recipe_id = ?)"
    tried = """image_id IN (SELECT image_id FROM features WHERE recipe_id = ? UNION ALL
                            SELECT image_id FROM failures WHERE recipe_id = ? AND image_id IS NOT NULL)"""
    return " AND ".join([computed, *(tried for _ in views)])


def _repeat(views: Sequence[str]) -> list[str]:
    return [view for view in views for _ in range(2)]


def find_version(lake: Lake, name: ModelName, registry: str, training_id: str) -> Version | None:
    """Find the newest version of a registered model that was made from a training."""
    rows = lake.rows(
        """SELECT name, version, training_id, run_id, alias, registry FROM models
           WHERE name = ? AND registry = ? AND training_id = ? ORDER BY version DESC LIMIT 1""",
        [name, registry, training_id],
    )
    return Version(*rows[0]) if rows else None


def find_champion(lake: Lake, name: ModelName) -> tuple[str, int] | None:
    """Find the registry and the version of a model's champion, as far as the lake has recorded it."""
    rows = lake.rows("SELECT registry, version FROM champions WHERE name = ? AND until IS NULL", [name])
    return rows[0] if rows else None


def find_champions_training(lake: Lake, name: ModelName) -> tuple[int, Training] | None:
    """Find the version and the training of a model's champion, as far as the lake has recorded it."""
    rows = lake.rows(
        """SELECT version, training_id FROM models JOIN champions USING (name, registry, version)
           WHERE name = ? AND until IS NULL""",
        [name],
    )
    training = find_training(lake, rows[0][1]) if rows else None
    return (rows[0][0], training) if training else None


def list_registries(lake: Lake, name: ModelName) -> dict[str, set[str]]:
    """List the registries that have versions of a model, with the MLflow runs of these; "" of earlier releases."""
    rows = lake.rows("SELECT registry, list(run_id) FROM models WHERE name = ? GROUP BY registry", [name])
    return {registry: set(run_ids) for registry, run_ids in rows}


def set_registry(lake: Lake, name: ModelName, registry: str) -> None:
    """Name the registry of versions that an earlier release recorded without it."""

    def write() -> None:
        for table in ("models", "predictions", "promotions"):
            lake.execute(f"UPDATE {table} SET registry = ? WHERE name = ? AND registry = ''", [registry, name])

    lake.commit(write)


def save_version(
    lake: Lake, version: Version, predictions: pa.Table, now: datetime, rows: Sequence[tuple[str, str]] = ()
) -> None:
    """Record a registered version with its predictions and the rows that the gate compared it on.

    Args:
        lake: The lake.
        version: The version.
        predictions: Columns image_id as text, class, probability.
        now: When it was registered.
        rows: The image_id and class of each compared row.
    """

    def write() -> None:
        for table in ("models", "predictions", "gate_rows"):
            lake.execute(f"DELETE FROM {table} WHERE {KEY}", version.key)
        row = [version.name, version.version, version.training_id, version.run_id, version.alias, now, version.registry]
        lake.execute("INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        _insert_predictions(lake, version, now)
        kept = list_survivors(lake)
        lake.execute(f"INSERT INTO gate_rows SELECT ?, ?, ?, image_id, class FROM _rows WHERE {kept}", version.key)

    image_ids, names = [image_id for image_id, _ in rows], [name for _, name in rows]
    compared = pa.table({"image_id": to_uuids(image_ids), "class": pa.array(names, pa.string())})
    with lake.temporary_tables(_predictions=predictions, _rows=compared):
        lake.commit(write)


def add_predictions(lake: Lake, version: Version, predictions: pa.Table, now: datetime) -> None:
    """Add a version's predictions of further images: columns image_id as text, class, probability."""
    with lake.temporary_tables(_predictions=predictions):
        lake.commit(lambda: _insert_predictions(lake, version, now))


def save_promotion(lake: Lake, version: Version, reason: str, now: datetime) -> None:
    """Record that a version became champion, and why."""
    row = [version.name, version.registry, version.version, reason, now]
    lake.commit(lambda: lake.execute("INSERT INTO promotions VALUES (?, ?, ?, ?, ?)", row))


def _insert_predictions(lake: Lake, version: Version, now: datetime) -> None:
    lake.execute(
        f"""INSERT INTO predictions SELECT $1, $3, image_id::UUID, class, probability, $4, $2 FROM _predictions
            WHERE {list_survivors(lake, "image_id::UUID")} AND image_id::UUID NOT IN
              (SELECT image_id FROM predictions WHERE name = $1 AND registry = $2 AND version = $3)""",
        [*version.key, now],
    )

"""Lineage: what a model version was made from, and what used an image."""

import uuid
from typing import Any

from storage.canonical import canonical
from storage.errors import QueryError
from storage.lake.lake import Lake
from storage.tables.trainings import find_training


def trace(lake: Lake, what: str, version: int | None = None) -> dict[str, Any]:
    """Trace a model version, by default the newest, back to its rows; or an image, by its id, to what used it.

    Raises:
        QueryError: if the lake has no such model or image.
    """
    if _is_id(what):
        if not lake.value("SELECT count(*) FROM images WHERE image_id = ?", [what]):
            raise QueryError(f"image {what}", "does not exist in this lake", "See `frostline sql 'from files'`")
        sql = "SELECT * EXCLUDE (image_id) FROM image_lineage WHERE image_id = ? ORDER BY name, version"
        return {"image": what, "used_by": lake.dicts(sql, [what])}
    found = lake.dicts(
        """SELECT * EXCLUDE (kind, hyperparameters, views) FROM model_lineage
           WHERE name = $1 AND ($2 IS NULL OR version = $2) ORDER BY version DESC LIMIT 1""",
        [what, version],
    )
    if not found:
        named = f"model {what}" if version is None else f"model {what} version {version}"
        raise QueryError(named, "does not exist in this lake", "See `frostline sql 'from models'`")
    rows = lake.dicts(
        """SELECT split, class, count(*) AS images FROM model_rows WHERE name = ? AND version = ?
           GROUP BY ALL ORDER BY ALL""",
        [what, found[0]["version"]],
    )
    training = find_training(lake, found[0]["training_id"])
    settings = canonical(training.parameters) if training else None
    return {**found[0], "settings": settings, "rows": rows}


def _is_id(what: str) -> bool:
    try:
        uuid.UUID(what)
    except ValueError:
        return False
    return True

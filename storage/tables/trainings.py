"""Trainings: the labelled rows of a snapshot, and the heads that were trained on them."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage.canonical import canonical
from storage.errors import TrainError
from storage.lake.erased import list_survivors
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName
from storage.plural import pluralize
from storage.vectors.feature_file import to_uuids

HEAD = "head.safetensors"
REMEMBERS_IMAGES = """(kind IS NOT DISTINCT FROM 'knn'
  OR coalesce(CASE WHEN json_valid(metrics) THEN metrics->>'$.refuse_nearest' IS NOT NULL END, false))"""
"""Condition that a head holds vectors of training images: it is k-NN, or may answer "neither"."""
_CHOSEN = "chosen_"
_LABELLED = """SELECT image_id, min(class) AS class FROM labels
  SEMI JOIN (SELECT image_id FROM features WHERE recipe_id = $2) USING (image_id)
  WHERE label_set = $1 GROUP BY image_id HAVING min(class) = max(class)"""
_ALL_LABELS = """SELECT DISTINCT image_id, class FROM labels
  SEMI JOIN (SELECT image_id FROM features WHERE recipe_id = $2) USING (image_id) WHERE label_set = $1"""


@dataclass(frozen=True)
class Training:
    """A trained head: what it was trained on, what was chosen on validation, how it did on the test split.

    ``kind`` and ``hyperparameters`` were chosen on validation; ``views`` are recipes of views of the images, also
    trained on. ``metrics`` are of the test split, such as accuracy, accuracy_low and accuracy_high.
    """

    training_id: str
    label_set: LabelSetName
    recipe_id: str
    snapshot: int
    settings: dict[str, object]
    kind: str
    metrics: dict[str, float]
    hyperparameters: dict[str, float] = field(default_factory=dict)
    views: tuple[str, ...] = ()

    @property
    def averaged(self) -> tuple[str, ...]:
        """The recipes of the views over which its answers average."""
        return self.views if self.settings.get("average_views") else ()

    @property
    def input_recipes(self) -> tuple[str, ...]:
        """The recipes whose features it needs for an answer: the images', and those of the views it averages over."""
        return self.recipe_id, *self.averaged

    @property
    def chosen(self) -> dict[str, object]:
        """What was chosen on validation, as commands print it: the kind of head, and its hyperparameters."""
        return {"head": self.kind, **self.hyperparameters}

    @property
    def parameters(self) -> dict[str, object]:
        """The settings together with the views and what was chosen: one flat record."""
        views = {"views": list(self.views)} if self.views else {}
        return {**self.settings, **views, **{f"{_CHOSEN}{name}": value for name, value in self.chosen.items()}}


def head_path(home: Home, training_id: str) -> Path:
    """Return the path of a trained head."""
    return home.heads / training_id / HEAD


def checkpoint_folder(home: Home, training_id: str) -> Path:
    """Return the folder of checkpoints from which an interrupted training resumes."""
    return home.heads / training_id / "checkpoints"


def evaluation_path(home: Home, training_id: str) -> Path:
    """Return the path of the evaluation: metrics, tables, confusion matrix, slices, split counts."""
    return home.heads / training_id / "evaluation.json"


def list_labelled(
    lake: Lake, label_set: LabelSetName, recipe_id: str, *, several: bool = False
) -> list[tuple[str, str]]:
    """List the (image_id, class) of images with a feature and one class, or ``several``, ordered by image_id."""
    labelled = _ALL_LABELS if several else _LABELLED
    return lake.rows(
        f"SELECT image_id::VARCHAR, class FROM ({labelled}) ORDER BY image_id, class", [label_set, recipe_id]
    )


def list_classes(
    lake: Lake, label_set: LabelSetName, image_ids: Sequence[str], *, several: bool = False
) -> list[tuple[str, str]]:
    """List the (image_id, class) of some images; without ``several``, those with exactly one class."""
    one = "" if several else "GROUP BY image_id HAVING min(class) = max(class)"
    names = "DISTINCT class" if several else "min(class) AS class"
    with lake.temporary_tables(_requested=pa.table({"image_id": to_uuids(image_ids)})):
        return lake.rows(
            f"""SELECT image_id::VARCHAR, class FROM (SELECT image_id, {names} FROM labels
                SEMI JOIN _requested USING (image_id) WHERE label_set = ? {one}) ORDER BY image_id, class""",
            [label_set],
        )


def digest_labelled(
    lake: Lake, label_set: LabelSetName, recipe_id: str, leave_out: Sequence[str], *, several: bool = False
) -> str:
    """Hash what :func:`list_labelled` lists, less some classes: SHA-256 over ``["image_id", "class"]`` of each row.

    A row ends with the image's decoding version if that is above 1: other pixels of the same image are other rows.
    DuckDB writes the rows as text, which is hashed in place in memory.
    """
    names = lake.column("SELECT DISTINCT class FROM labels WHERE label_set = ?", [label_set])
    texts = pa.table({"class": names, "text": [json.dumps(name) for name in names]})
    hashed = hashlib.sha256()
    with lake.temporary_tables(_texts=texts.cast(pa.schema([("class", pa.string()), ("text", pa.string())]))):
        rows = lake.table(
            f"""SELECT concat('["', image_id::VARCHAR, '", ', text, ', ' || decoding, ']') AS row
                FROM ({_ALL_LABELS if several else _LABELLED}) JOIN _texts USING (class)
                LEFT JOIN (SELECT image_id, decoding FROM images WHERE decoding > 1) USING (image_id)
                WHERE class NOT IN (SELECT unnest($3::VARCHAR[])) ORDER BY image_id, class""",
            [label_set, recipe_id, list(leave_out)],
        )
    for piece in rows["row"].cast(pa.large_binary()).chunks:
        ends = np.frombuffer(piece.buffers()[1], np.int64)[piece.offset : piece.offset + len(piece) + 1]
        hashed.update(memoryview(piece.buffers()[2])[ends[0] : ends[-1]])
    return hashed.hexdigest()


def count_conflicts(lake: Lake, label_set: LabelSetName) -> int:
    """Count the images that have several classes in a label set."""
    sql = "SELECT image_id FROM labels WHERE label_set = ? GROUP BY image_id HAVING min(class) <> max(class)"
    return int(lake.value(f"SELECT count(*) FROM ({sql})", [label_set]))


def list_trainings(lake: Lake, condition: str, parameters: Sequence[object] = ()) -> list[Training]:
    """List the trainings that meet a SQL condition, newest first."""
    rows = lake.dicts(f"FROM heads WHERE {condition} ORDER BY trained_at DESC, training_id", parameters)
    return [_read_training(row if "kind" in row else _upgrade_row(row)) for row in rows]


def find_training(lake: Lake, training_id: str) -> Training | None:
    """Find a training by its id."""
    return next(iter(list_trainings(lake, "training_id = ?", [training_id])), None)


def find_newest(lake: Lake, label_set: LabelSetName, recipe_id: str | None = None) -> Training | None:
    """Find the newest training of a label set, under one recipe or any."""
    condition = "label_set = $1 AND ($2 IS NULL OR recipe_id = $2)"
    return next(iter(list_trainings(lake, condition, [label_set, recipe_id])), None)


def save_training(lake: Lake, training: Training, rows: pa.Table, now: datetime, code: str | None = None) -> None:
    """Record a training with its exact rows (image_id as text, class, split) and its code, unless it is recorded.

    Raises:
        TrainError: if one of its images was erased meanwhile.
    """

    def write() -> None:
        _refuse_erased(lake, training.training_id)
        if find_training(lake, training.training_id) is None:
            _write_training(lake, training, now, code)
            lake.execute(
                "INSERT INTO training_sets SELECT ?, image_id::UUID, class, split FROM _rows", [training.training_id]
            )

    with lake.temporary_tables(_rows=rows):
        lake.commit(write)


def _write_training(lake: Lake, training: Training, now: datetime, code: str | None) -> None:
    lake.execute(
        "INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            training.training_id,
            training.label_set,
            training.recipe_id,
            training.snapshot,
            canonical(training.settings),
            canonical(training.metrics),
            now,
            code,
            training.kind,
            canonical(training.hyperparameters),
            list(training.views),
        ],
    )


def _read_training(row: dict[str, Any]) -> Training:
    return Training(
        row["training_id"],
        LabelSetName(row["label_set"]),
        row["recipe_id"],
        row["snapshot"],
        json.loads(row["settings"]),
        row["kind"],
        json.loads(row["metrics"]),
        json.loads(row["hyperparameters"]),
        tuple(row["views"]),
    )


def _upgrade_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row of a snapshot from before schema version 4, which held everything in ``settings``."""
    settings = json.loads(row["settings"])
    views = settings.pop("views", [])
    chosen = {name: settings.pop(name) for name in list(settings) if name.startswith(_CHOSEN)}
    kind = chosen.pop(f"{_CHOSEN}head", "softmax")  # the only kind of the first release
    hyperparameters = {name.removeprefix(_CHOSEN): value for name, value in chosen.items()}
    return {
        **row,
        "settings": json.dumps(settings),
        "kind": kind,
        "hyperparameters": json.dumps(hyperparameters),
        "views": views,
    }


def _refuse_erased(lake: Lake, training_id: str) -> None:
    """Refuse rows of erased images, and delete the head that was trained on them."""
    gone = lake.value(f"SELECT count(*) FROM _rows WHERE NOT ({list_survivors(lake, 'image_id::UUID')})")
    if gone:
        shutil.rmtree(head_path(lake.home, training_id).parent, ignore_errors=True)
        rule = f"{'was' if gone == 1 else 'were'} erased while a head was trained on {'it' if gone == 1 else 'them'}"
        raise TrainError(pluralize(gone, "image"), rule, "Run again")


def list_split(lake: Lake, training_id: str, split: str) -> list[tuple[str, str]]:
    """List the (image_id, class) of one split of a training, ordered by image_id."""
    return lake.rows(
        "SELECT image_id::VARCHAR, class FROM training_sets WHERE training_id = ? AND split = ? ORDER BY image_id",
        [training_id, split],
    )

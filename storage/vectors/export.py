"""Export features with their classes to a folder that can be read without the lake and without this project."""

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import ExportError
from storage.locations.atomic import write_folder
from storage.names import LabelSetName
from storage.release import name_release
from storage.vectors.feature_file import Matrix
from storage.vectors.features_reader import Features, to_lists
from storage.vectors.gather import Indices, at_snapshot

Format = Literal["parquet", "datasets"]
ROWS_PER_FILE, ROWS_PER_GROUP = 131_072, 8_192
MANIFEST = "manifest.json"
COLUMNS = {
    "image_id": "First 128 bits of the SHA-256 of the image's bytes, as UUID",
    "first_seen": "When the lake first saw the image",
    "class": "The image's class in the label set; null if it has none or several",
    "vector": "The feature, float32",
}


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export, with its size and checksum; ``rows`` is None if it is not Parquet."""

    path: str
    rows: int | None
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of an export, and where it came from."""

    snapshot: int
    recipe_id: str
    recipe: dict[str, Any]
    where: str | None
    label_set: LabelSetName | None
    classes: tuple[str, ...]
    format: Format
    rows: int
    columns: dict[str, str]
    files: tuple[ExportedFile, ...]
    made_by: str
    made_at: str


def export_features(
    features: Features, folder: Path, now: datetime, *, label_set: LabelSetName | None = None, form: Format = "parquet"
) -> Manifest:
    """Write features with classes into a new folder with a manifest, atomically.

    Args:
        features: The features to write.
        folder: A folder that does not exist yet.
        now: The time for the manifest.
        label_set: The label set of the classes; by default the only one.
        form: ``parquet`` for plain Parquet, ``datasets`` for Hugging Face's ``load_from_disk``.

    Raises:
        ExportError: if the folder exists or cannot be written, or ``datasets`` is not installed.
        QueryError: if the lake has no such label set, or has several and none is named.
    """
    facts = _read_facts(features, label_set)
    classes = tuple(sorted(set(facts["class"].drop_null().to_pylist())))
    with _make_folder(folder) as unfinished:
        if form == "parquet":
            _write_parquet(features, facts, unfinished / "data")
        else:
            _write_datasets(features, facts, unfinished, classes)
        manifest = Manifest(
            snapshot=features.snapshot,
            recipe_id=features.recipe.recipe_id,
            recipe=json.loads(features.recipe.text),
            where=features.where,
            label_set=features.find_label_set(label_set),
            classes=classes,
            format=form,
            rows=len(features),
            columns={name: text for name, text in COLUMNS.items() if form == "parquet" or name != "first_seen"},
            files=tuple(_describe(unfinished, file) for file in sorted(unfinished.rglob("*")) if file.is_file()),
            made_by=f"frostline {name_release()}",
            made_at=now.isoformat(),
        )
        (unfinished / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    return manifest


@contextlib.contextmanager
def _make_folder(folder: Path) -> Iterator[Path]:
    """Write a new folder atomically, as :func:`write_folder` does, and translate errors."""
    if folder.exists():
        raise ExportError(f"folder {folder}", "exists already", "Name another, or remove it")
    try:
        with write_folder(folder) as unfinished:
            yield unfinished
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise ExportError(f"folder {folder}", reason, "Make room, or name another") from error


def _read_facts(features: Features, label_set: LabelSetName | None) -> pa.Table:
    """Read ``image_id`` as text, ``first_seen`` and ``class``, in the order of the features' ids."""
    images = pa.table({"image_id": features.image_ids, "position": pa.array(np.arange(len(features)))})
    with features.lake.temporary_tables(_images=images):
        seen = features.lake.table(
            f"""SELECT image_id::VARCHAR AS image_id, first_seen
                FROM _images LEFT JOIN (FROM images{at_snapshot(features.at)}) USING (image_id) ORDER BY position"""
        )
    return seen.append_column("class", features.classes(label_set))


def _write_parquet(features: Features, facts: pa.Table, folder: Path) -> None:
    folder.mkdir()
    parts = features.parts(ROWS_PER_GROUP)
    empty = (np.empty(0, np.int64), np.empty((0, features.recipe.dim), np.float32))
    schema = _to_table(facts, *empty).schema
    for number in range(max(1, -(-len(features) // ROWS_PER_FILE))):
        with _open_writer(folder / f"features-{number:05}.parquet", schema) as writer:
            for positions, matrix in itertools.islice(parts, ROWS_PER_FILE // ROWS_PER_GROUP):
                writer.write_table(_to_table(facts, positions, matrix))


def _open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=["class"],
        use_byte_stream_split=["vector.list.element"],
    )


def _to_table(facts: pa.Table, positions: Indices, matrix: Matrix) -> pa.Table:
    return facts.take(pa.array(positions)).append_column("vector", to_lists(matrix))


def _write_datasets(features: Features, facts: pa.Table, folder: Path, classes: Sequence[str]) -> None:
    """Write Parquet, which ``datasets`` converts to its own files without loading it into memory.

    ``first_seen`` is left out, since the torch format of ``datasets`` does not support times.
    """
    try:
        import datasets
    except ImportError as error:
        raise ExportError("format datasets", "needs the package datasets", "Install frostline[datasets]") from error
    columns = datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "class": datasets.ClassLabel(names=list(classes)),
            "vector": datasets.List(datasets.Value("float32"), length=features.recipe.dim),
        }
    )
    scratch = folder / "scratch"
    _write_parquet(features, facts, scratch)
    files = [str(file) for file in sorted(scratch.iterdir())]
    datasets.disable_progress_bars()
    cache = str(scratch / "cache")
    whole = datasets.Dataset.from_parquet(files, features=columns, columns=list(columns), cache_dir=cache)
    whole.save_to_disk(folder)
    shutil.rmtree(scratch)


def _describe(folder: Path, file: Path) -> ExportedFile:
    rows = pq.read_metadata(file).num_rows if file.suffix == ".parquet" else None
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return ExportedFile(file.relative_to(folder).as_posix(), rows, file.stat().st_size, digest)

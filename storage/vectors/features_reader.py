"""Read features: those of one recipe, at a snapshot, under a condition, as NumPy, Arrow, pandas or polars."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from storage.errors import QueryError
from storage.lake.lake import Lake
from storage.lake.snapshots import find_snapshot
from storage.locations.parquet_files import open_data
from storage.names import LabelSetName
from storage.plural import pluralize
from storage.recipe import Recipe, read_recipe
from storage.vectors.feature_file import Matrix
from storage.vectors.gather import (
    FileRows,
    Indices,
    RowGroups,
    at_snapshot,
    gather_vectors,
    list_row_groups,
    locate_rows,
    locate_whole_files,
    read_row_groups,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

COLUMNS = (
    "image_id, format, width, height, mode, bytes, first_seen, source, path, "
    "label_set, class, labelled_by, labelled_at, file_bytes and mtime_ns"
)


class Vectors(NamedTuple):
    """Ids [n], as Arrow UUIDs, and the vectors [n, dim], float32, contiguous, in the same order."""

    image_ids: pa.Array
    matrix: Matrix


@dataclass(frozen=True)
class Features:
    """The features of one recipe. The ids are loaded; vectors are read on demand.

    ``image_ids`` are Arrow UUIDs in ascending order, the order of everything that is read as a whole.
    """

    lake: Lake
    recipe: Recipe
    at: int | None
    where: str | None
    image_ids: pa.Array
    pieces: tuple[FileRows, ...]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.image_ids)

    def to_numpy(self) -> Vectors:
        """Read the ids and one matrix, which ``torch.from_numpy`` accepts without a copy.

        Raises:
            LakeError: if a file cannot be read; all other methods that read raise it, too.
        """
        return Vectors(self.image_ids, gather_vectors(self.lake, self.at, self.pieces, self.recipe.dim))

    def to_arrow(self) -> pa.Table:
        """Read ``image_id`` (UUID) and ``vector`` (float32, lists of one length)."""
        image_ids, matrix = self.to_numpy()
        return pa.table({"image_id": image_ids, "vector": to_lists(matrix)})

    def to_pandas(self) -> "pd.DataFrame":
        """Read ``image_id`` (text) and ``vector`` (an array each, all views of one matrix)."""
        import pandas as pd

        image_ids, matrix = self.to_numpy()
        return pd.DataFrame({"image_id": to_texts(image_ids).to_pandas(), "vector": list(matrix)})

    def to_polars(self) -> "pl.DataFrame":
        """Read ``image_id`` (text) and ``vector`` (``Array(Float32, dim)``)."""
        import polars as pl

        image_ids, matrix = self.to_numpy()
        return pl.DataFrame(pa.table({"image_id": to_texts(image_ids), "vector": to_lists(matrix)}))

    def batches(self, size: int) -> Iterator[Vectors]:
        """Read batches of ``size`` images in the order of the files; at most one row group is in memory at a time."""
        for positions, vectors in self.parts(size):
            yield Vectors(self.image_ids.take(pa.array(positions)), vectors)

    def parts(self, size: int) -> Iterator[tuple[Indices, Matrix]]:
        """Read batches as :meth:`batches` does, with indices into ``image_ids`` instead of ids."""
        pending: list[tuple[Indices, Matrix]] = []
        room = size
        for group in self.groups():
            positions, vectors = group.positions, self.read(group)
            while len(positions):
                pending.append((positions[:room], vectors[:room]))
                positions, vectors = positions[room:], vectors[room:]
                room -= len(pending[-1][0])
                if not room:
                    yield _concatenate(pending)
                    pending, room = [], size
        if pending:
            yield _concatenate(pending)

    def groups(self) -> list[RowGroups]:
        """List the row groups that contain the vectors, always in the same order for one snapshot."""
        return list(list_row_groups(open_data(self.lake.home)[0], self.pieces))

    def read(self, group: RowGroups) -> Matrix:
        """Read the vectors of a row group, [n, dim]; its ``positions`` are indices into ``image_ids``."""
        return read_row_groups(self.lake, self.at, group, self.recipe.dim)

    def classes(self, label_set: LabelSetName | None = None) -> pa.Array:
        """Read the class of each image, as text, in the order of ``image_ids``; null if it has none or several.

        Raises:
            QueryError: if the lake has no such label set, or has several and none is named.
        """
        found = self.find_label_set(label_set)
        images = pa.table({"image_id": self.image_ids, "position": pa.array(np.arange(len(self)))})
        with self.lake.temporary_tables(_images=images):
            table = self.lake.table(
                f"""SELECT CASE WHEN count(DISTINCT class) = 1 THEN min(class) END AS class FROM _images
                    LEFT JOIN (FROM labels{at_snapshot(self.at)} WHERE label_set = ?) USING (image_id)
                    GROUP BY position ORDER BY position""",
                [found],
            )
        return table["class"].combine_chunks()

    @property
    def snapshot(self) -> int:
        """The snapshot of the features."""
        return self.lake.snapshot if self.at is None else self.at

    def find_label_set(self, named: LabelSetName | None = None) -> LabelSetName | None:
        """Find a label set by name, or the only one; None if there is none and none is named.

        Raises:
            QueryError: if there is no such label set, or several and none is named.
        """
        sets = self.lake.column(f"SELECT DISTINCT label_set FROM labels{at_snapshot(self.at)} ORDER BY label_set")
        if named is not None and named not in sets:
            remedy = f"There are {', '.join(sets) or 'none'}"
            raise QueryError(f"label set {named!r}", f"does not exist at snapshot {self.snapshot}", remedy)
        if named is None and len(sets) > 1:
            rule = "are several, and each may have a class for an image"
            raise QueryError(f"label sets {', '.join(sets)}", rule, "Name one of them")
        return named or (sets[0] if sets else None)


def find_features(lake: Lake, recipe: str, at: int | str | None = None, where: str | None = None) -> Features:
    """Find features, to be read as Arrow, pandas, polars, NumPy, or in batches.

    Args:
        lake: The lake.
        recipe: The id of a recipe, or a unique prefix of it.
        at: The number or tag of a snapshot; by default the newest.
        where: A SQL condition that an image must meet with at least one of its files and labels. Its columns are those
            of ``images``; ``source``, ``path``, ``file_bytes`` and ``mtime_ns`` of ``files``; ``label_set``, ``class``,
            ``labelled_by`` and ``labelled_at`` of ``labels``.

    Raises:
        QueryError: if there is no such recipe, or DuckDB refuses the condition.
        LakeError: if there is no such snapshot.
    """
    return _find_at(lake, recipe, None if at is None else find_snapshot(lake, at), where)


def _find_at(lake: Lake, recipe: str, at: int | None, where: str | None) -> Features:
    found = _find_recipe(lake, recipe, at)
    if not where and (whole := locate_whole_files(lake, at, found.recipe_id)):
        return Features(lake, found, at, where, *whole)
    kept = f"AND image_id IN ({select_images(at, where)})" if where else ""
    wanted = f"""SELECT image_id, filename, file_row_number, row_number() OVER (ORDER BY image_id) - 1 AS position
                 FROM features{at_snapshot(at)} WHERE recipe_id = ? {kept}"""
    with explain_condition(f"where {where!r}"):
        if where:
            check_condition(lake, at, where)
        image_ids, pieces = locate_rows(lake, wanted, [found.recipe_id])
    return Features(lake, found, at, where, image_ids, pieces)


def to_lists(matrix: Matrix) -> pa.Array:
    """View a matrix as Arrow fixed-size lists, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def to_texts(image_ids: pa.Array) -> pa.Array:
    """Convert Arrow UUIDs to text, as SQL shows them."""
    with duckdb.connect() as con:
        texts = con.from_arrow(pa.table({"image_id": image_ids})).project("image_id::VARCHAR AS image_id")
        return texts.to_arrow_table()["image_id"]


def select_images(at: int | None, where: str) -> str:
    """Return the SQL that selects images that meet a condition with at least one of their files and labels."""
    return f"SELECT image_id FROM ({_join_facts(at)}) WHERE ({where}\n)"


def check_condition(lake: Lake, at: int | None, where: str) -> None:
    """Check that a text is a single SQL condition, and its type boolean: SQL would accept a number, too.

    Raises:
        QueryError: if it is not boolean; or duckdb.Error, if DuckDB cannot parse it.
    """
    duckdb.SQLExpression(where)  # alone, since a bracket in it could close the one around it
    kind = lake.rows(f"DESCRIBE SELECT ({where}\n) FROM ({_join_facts(at)})")[0][1]
    if kind != "BOOLEAN":
        raise QueryError(f"where {where!r}", f"has type {kind}, not BOOLEAN", "Compare it with something")


@contextlib.contextmanager
def explain_condition(value: str) -> Iterator[None]:
    """Translate DuckDB's error about a condition, and list the columns that it may use.

    Raises:
        QueryError: if DuckDB refuses the condition.
    """
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(value, _first_line(error), f"Its columns are {COLUMNS}") from error


def _join_facts(at: int | None) -> str:
    version = at_snapshot(at)
    return f"""SELECT i.*, f.source, f.path, f.bytes AS file_bytes, f.mtime_ns,
                 l.label_set, l.class, l.source AS labelled_by, l.labelled_at
               FROM (FROM images{version}) i LEFT JOIN (FROM files{version}) f USING (image_id)
               LEFT JOIN (FROM labels{version}) l USING (image_id)"""


def _find_recipe(lake: Lake, recipe: str, at: int | None) -> Recipe:
    try:
        found = lake.rows(f"SELECT recipe FROM recipes{at_snapshot(at)} WHERE starts_with(recipe_id, ?)", [recipe])
    except duckdb.Error as error:
        remedy = "See `frostline sql \"select snapshot_id from ducklake_snapshots('lake')\"`"
        raise QueryError(f"snapshot {at}", _first_line(error), remedy) from error
    if len(found) != 1:
        rule = f"begins the ids of {pluralize(len(found), 'recipe')}" if found else "begins no recipe's id"
        raise QueryError(f"recipe {recipe!r}", rule, "See `frostline sql 'from recipes'`")
    return read_recipe(found[0][0])


def _concatenate(pending: list[tuple[Indices, Matrix]]) -> tuple[Indices, Matrix]:
    positions, vectors = zip(*pending, strict=True)
    return np.concatenate(positions), np.concatenate(vectors)


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]

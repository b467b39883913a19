"""Reading features: the rows of one recipe, at one snapshot, under one condition, in the form that a tool wants."""

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
    """The features of one recipe. Which images they are of is known; the vectors are read when they are asked for.

    ``image_ids`` are Arrow UUIDs in ascending order, which is the order of all that is read as a whole.
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
        """Read ids and one matrix, which ``torch.from_numpy`` takes without a copy.

        Raises:
            LakeError: where a file cannot be read, here and in all other ways to read.
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
        """Read ``size`` images at a time, in the order in which they lie; one row group of a file is held at a time."""
        for positions, vectors in self.parts(size):
            yield Vectors(self.image_ids.take(pa.array(positions)), vectors)

    def parts(self, size: int) -> Iterator[tuple[Indices, Matrix]]:
        """Read as :meth:`batches` does, with places in ``image_ids`` in the ids' place."""
        held: list[tuple[Indices, Matrix]] = []
        room = size
        for group in self.groups():
            positions, vectors = group.positions, self.read(group)
            while len(positions):
                held.append((positions[:room], vectors[:room]))
                positions, vectors = positions[room:], vectors[room:]
                room -= len(held[-1][0])
                if not room:
                    yield _join(held)
                    held, room = [], size
        if held:
            yield _join(held)

    def groups(self) -> list[RowGroups]:
        """List the row groups in which the vectors lie, in one order for one snapshot."""
        return list(list_row_groups(open_data(self.lake.home)[0], self.pieces))

    def read(self, group: RowGroups) -> Matrix:
        """Read the vectors of one row group, [n, dim], of the images ``image_ids`` at its positions."""
        return read_row_groups(self.lake, self.at, group, self.recipe.dim)

    def classes(self, label_set: LabelSetName | None = None) -> pa.Array:
        """Read each image's class, as text, in the order of ``image_ids``; null where it has none or several.

        Raises:
            QueryError: where the lake has no label set of the name, or none is named and it has several.
        """
        chosen = self.find_label_set(label_set)
        asked = pa.table({"image_id": self.image_ids, "position": pa.array(np.arange(len(self)))})
        with self.lake.temporary_tables(_asked=asked):
            found = self.lake.table(
                f"""SELECT CASE WHEN count(DISTINCT class) = 1 THEN min(class) END AS class FROM _asked
                    LEFT JOIN (FROM labels{at_snapshot(self.at)} WHERE label_set = ?) USING (image_id)
                    GROUP BY position ORDER BY position""",
                [chosen],
            )
        return found["class"].combine_chunks()

    @property
    def snapshot(self) -> int:
        """The snapshot that they are of."""
        return self.lake.snapshot if self.at is None else self.at

    def find_label_set(self, named: LabelSetName | None = None) -> LabelSetName | None:
        """Find a label set, or the only one that there is; None where there is none and none is named.

        Raises:
            QueryError: where there is none of the name, or there are several to choose from.
        """
        sets = self.lake.column(f"SELECT DISTINCT label_set FROM labels{at_snapshot(self.at)} ORDER BY label_set")
        if named is not None and named not in sets:
            remedy = f"There are {', '.join(sets) or 'none'}"
            raise QueryError(f"label set {named!r}", f"is none of snapshot {self.snapshot}", remedy)
        if named is None and len(sets) > 1:
            rule = "are several, each with a class for an image"
            raise QueryError(f"label sets {', '.join(sets)}", rule, "Name one of them")
        return named or (sets[0] if sets else None)


def find_features(lake: Lake, recipe: str, at: int | str | None = None, where: str | None = None) -> Features:
    """Find features to read: as Arrow, pandas, polars, NumPy, or batch by batch.

    Args:
        lake: The lake that has them.
        recipe: A recipe's id, or the beginning of one if no other recipe's id begins so.
        at: A snapshot's number or tag, to read the features as they were.
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
    """Show a matrix as Arrow lists of one length, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def to_texts(image_ids: pa.Array) -> pa.Array:
    """Write Arrow UUIDs as text, as SQL shows them."""
    with duckdb.connect() as con:
        texts = con.from_arrow(pa.table({"image_id": image_ids})).project("image_id::VARCHAR AS image_id")
        return texts.to_arrow_table()["image_id"]


def select_images(at: int | None, where: str) -> str:
    """Select the images for which a condition holds, with at least one of their files and labels."""
    return f"SELECT image_id FROM ({_join_facts(at)}) WHERE ({where}\n)"


def check_condition(lake: Lake, at: int | None, where: str) -> None:
    """Refuse what is no single condition, or is one of which SQL makes a truth by itself, as of any number but 0.

    Raises:
        QueryError: saying what it is; or duckdb.Error, where DuckDB cannot read it.
    """
    duckdb.SQLExpression(where)  # by itself, lest a bracket in it closes the one around it
    kind = lake.rows(f"DESCRIBE SELECT ({where}\n) FROM ({_join_facts(at)})")[0][1]
    if kind != "BOOLEAN":
        raise QueryError(f"where {where!r}", f"is of type {kind}, not true or false", "Compare it with something")


@contextlib.contextmanager
def explain_condition(value: str) -> Iterator[None]:
    """Tell what DuckDB has against a condition, and which columns it may have.

    Raises:
        QueryError: naming the value.
    """
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(value, _first_line(error), f"Its columns are {COLUMNS}") from error


def _join_facts(at: int | None) -> str:
    then = at_snapshot(at)
    return f"""SELECT i.*, f.source, f.path, f.bytes AS file_bytes, f.mtime_ns,
                 l.label_set, l.class, l.source AS labelled_by, l.labelled_at
               FROM (FROM images{then}) i LEFT JOIN (FROM files{then}) f USING (image_id)
               LEFT JOIN (FROM labels{then}) l USING (image_id)"""


def _find_recipe(lake: Lake, recipe: str, at: int | None) -> Recipe:
    try:
        found = lake.rows(f"SELECT recipe FROM recipes{at_snapshot(at)} WHERE starts_with(recipe_id, ?)", [recipe])
    except duckdb.Error as error:
        remedy = "See `frostline sql \"select snapshot_id from ducklake_snapshots('lake')\"`"
        raise QueryError(f"snapshot {at}", _first_line(error), remedy) from error
    if len(found) != 1:
        rule = f"begins {len(found)} recipes' ids" if found else "begins no recipe's id"
        raise QueryError(f"recipe {recipe!r}", rule, "See `frostline sql 'from recipes'`")
    return read_recipe(found[0][0])


def _join(held: list[tuple[Indices, Matrix]]) -> tuple[Indices, Matrix]:
    positions, vectors = zip(*held, strict=True)
    return np.concatenate(positions), np.concatenate(vectors)


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]

"""What is missing under a recipe, and why. Pure reads."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.lake.lake import Lake, quote
from storage.names import SourceName
from storage.tables.scans import Scan

FIRST_ID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class LostFile:
    """A file of features that the catalog names and that is not there, with its first and last image_id."""

    name: str
    first: str
    last: str


@dataclass(frozen=True)
class FeatureRequest:
    """Features that shall be there: of all images of a source, under a recipe.

    Images that failed are left out, unless they could not be read or ``retry`` asks for them; what failed at
    ``since`` or later is left out in any case, so that a run tries nothing twice. What lay in ``lost`` files counts as
    missing.
    """

    recipe_id: str
    source: SourceName
    retry: bool = False
    since: datetime | None = None
    lost: tuple[LostFile, ...] = ()

    @property
    def parameters(self) -> list[object]:
        """The values of ``$1`` to ``$4`` in this module's queries."""
        return [self.recipe_id, self.source, self.retry, self.since]


@dataclass(frozen=True)
class Counts:
    """How many images lack a feature, and how many have one; those that failed are neither."""

    missing: int
    present: int


@dataclass(frozen=True)
class Missing:
    """How many images of a class (the first of several, None where there is none) lack a feature for one reason.

    The reasons: ``new_image``, ``bytes_changed`` (of a known path), ``new_recipe``, ``feature_lost`` (its file is
    gone), ``unfinished`` (an earlier run did not come to it) and ``retry``.
    """

    label: str | None
    reason: str
    images: int


_NOW = """SELECT image_id, path, NULL::VARCHAR AS class, false AS changed FROM files
  WHERE source = $2 AND image_id IS NOT NULL"""
_FAILED = """SELECT DISTINCT image_id FROM failures WHERE recipe_id = $1
  AND (stage <> 'read' AND NOT $3 OR failed_at >= coalesce($4::TIMESTAMPTZ, 'infinity'))"""
# Not as an anti join: over an emptied table DuckDB 1.5.5 takes one by ranges for empty.
_FREE = """WHERE NOT EXISTS (FROM leases l WHERE recipe_id = $1 AND expires_at > $7
                             AND m.image_id BETWEEN l.first AND l.last)"""

# What a source will hold once the scan that is lent as _listing and _reads is committed.
_AFTER = """SELECT r.image_id, path, class, k.path IS NOT NULL AS changed FROM _reads r JOIN _listing USING (path)
    LEFT JOIN (SELECT path FROM files WHERE source = $2) k USING (path) WHERE r.image_id IS NOT NULL
  UNION ALL
  SELECT f.image_id, path, l.class, false FROM files f JOIN _listing l USING (path) ANTI JOIN _reads USING (path)
    WHERE source = $2 AND f.image_id IS NOT NULL"""
# The big tables are searched for the few that are missing, never the other way round.
_REASONS = """SELECT coalesce(m.class, labelled.class) AS class, CASE WHEN failed.image_id IS NOT NULL THEN 'retry'
      WHEN {lost} THEN 'feature_lost' WHEN elsewhere.image_id IS NOT NULL THEN 'new_recipe'
      WHEN known.image_id IS NOT NULL THEN 'unfinished' WHEN changed THEN 'bytes_changed' ELSE 'new_image' END
      AS reason, count(*)
    FROM missing m
    LEFT JOIN (SELECT image_id, min(class) AS class FROM labels SEMI JOIN missing USING (image_id)
               WHERE source = $2 GROUP BY image_id) labelled USING (image_id)
    LEFT JOIN (SELECT DISTINCT image_id FROM failures SEMI JOIN missing USING (image_id) WHERE recipe_id = $1) failed
      USING (image_id)
    LEFT JOIN (SELECT DISTINCT image_id FROM features SEMI JOIN missing USING (image_id)
               WHERE recipe_id <> $1 AND {there}) elsewhere
      USING (image_id)
    LEFT JOIN (SELECT image_id FROM images SEMI JOIN missing USING (image_id)) known USING (image_id)
    GROUP BY ALL ORDER BY ALL"""


def count_images(lake: Lake, wanted: FeatureRequest) -> Counts:
    """Count the images of a source by whether they have a feature."""
    found = lake.rows(
        f"""SELECT count(*) FILTER (p.image_id IS NULL AND f.image_id IS NULL), count(p.image_id)
            FROM (SELECT DISTINCT image_id FROM ({_NOW}))
            LEFT JOIN (SELECT image_id FROM features WHERE recipe_id = $1 AND {_is_there(wanted.lost)}) p
              USING (image_id)
            LEFT JOIN ({_FAILED}) f USING (image_id)""",
        wanted.parameters,
    )
    return Counts(*found[0])


def list_missing(
    lake: Lake, wanted: FeatureRequest, limit: int, *, after: str = FIRST_ID, free_at: datetime | None = None
) -> list[tuple[str, str]]:
    """List the (image_id, path) of the first images behind ``after`` without a feature, in the order of image_id.

    ``limit`` is how many files are looked at; of the copies of an image the first counts. What a run holds at
    ``free_at`` is left out.
    """
    held, given = (_FREE, [free_at]) if free_at else ("", [])
    rows = lake.rows(
        f"""SELECT image_id::VARCHAR, path
            FROM (SELECT image_id, path FROM ({_NOW} AND image_id > $6::UUID) {_lacking(wanted)}) m {held}
            ORDER BY image_id, path LIMIT $5""",
        [*wanted.parameters, limit, after, *given],
    )
    firsts: dict[str, str] = {}
    for image_id, path in rows:
        firsts.setdefault(image_id, path)
    return list(firsts.items())


def explain_missing(lake: Lake, wanted: FeatureRequest, scan: Scan | None = None) -> list[Missing]:
    """Count what is missing by class and reason: now, or once a scan is committed."""
    missing = f"""SELECT image_id, min(class) AS class, bool_or(changed) AS changed
                  FROM ({_AFTER if scan else _NOW}) {_lacking(wanted)} GROUP BY image_id"""
    reasons = _REASONS.format(lost=_lies_in(wanted.lost), there=_is_there(wanted.lost))
    with _with_scan(lake, scan):
        rows = lake.rows(f"WITH missing AS MATERIALIZED ({missing}) {reasons}", wanted.parameters)
    return [Missing(*row) for row in rows]


def count_present(lake: Lake, wanted: FeatureRequest, scan: Scan | None = None) -> int:
    """Count the images that have a feature: now, or once a scan is committed."""
    sql = f"""SELECT count(DISTINCT image_id) FROM ({_AFTER if scan else _NOW})
              SEMI JOIN (SELECT image_id FROM features WHERE recipe_id = $1 AND {_is_there(wanted.lost)})
              USING (image_id)"""
    with _with_scan(lake, scan):
        return int(lake.value(sql, wanted.parameters[:2]))


def _lacking(wanted: FeatureRequest) -> str:
    """Write the joins that leave what has no feature and shall have one."""
    return f"""ANTI JOIN (SELECT image_id FROM features WHERE recipe_id = $1 AND {_is_there(wanted.lost)})
                 USING (image_id)
               ANTI JOIN ({_FAILED}) USING (image_id)"""


def _is_there(lost: Sequence[LostFile]) -> str:
    """Write the condition under which DuckDB opens no lost file."""
    return f"filename NOT IN ({', '.join(quote(file.name) for file in lost)})" if lost else "true"


def _lies_in(lost: Sequence[LostFile]) -> str:
    """Write the condition under which an image's feature may have been in a lost file: shards are ranges."""
    ranges = [f"m.image_id BETWEEN '{UUID(file.first)}' AND '{UUID(file.last)}'" for file in lost]
    return f"({' OR '.join(ranges)})" if ranges else "false"


def _with_scan(lake: Lake, scan: Scan | None) -> AbstractContextManager[None]:
    return lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads) if scan else nullcontext()

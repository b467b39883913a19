"""Which images lack a feature under a recipe, and why. Reads only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.lake.lake import Lake, quote
from storage.names import SourceName
from storage.sources.open_image import LocatedImage, Locator
from storage.tables.scans import CHANGED, STALE, Scan

FIRST_ID = "00000000-0000-0000-0000-000000000000"
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True)
class LostFile:
    """A file of features that is in the catalog but not on disk, with its first and last image_id."""

    name: str
    first: str
    last: str


@dataclass(frozen=True)
class FeatureRequest:
    """Request for the features of all images of a source under a recipe.

    Images that failed before are left out, unless they could not be read or ``retry`` is set. What failed at ``since``
    or later is always left out, so that a run tries nothing twice. Features in ``lost`` files count as missing.
    """

    recipe_id: str
    source: SourceName
    retry: bool = False
    since: datetime | None = None
    lost: tuple[LostFile, ...] = ()

    @property
    def parameters(self) -> list[object]:
        """The values of ``$1`` to ``$4`` in the queries of this module."""
        return [self.recipe_id, self.source, self.retry, self.since]


@dataclass(frozen=True)
class Counts:
    """The number of images without and with a feature; images that failed count as neither."""

    missing: int
    present: int


@dataclass(frozen=True)
class Missing:
    """The number of images of a class (the first of several; None if unlabelled) that lack a feature for one reason.

    Reasons: ``new_image``, ``bytes_changed`` (of a known path), ``new_recipe``, ``feature_lost`` (its file is gone),
    ``pixels_changed`` (this release decodes it differently), ``unfinished`` (an earlier run did not get to it) and
    ``retry``.
    """

    label: str | None
    reason: str
    images: int


_CURRENT = """SELECT image_id, path, NULL::VARCHAR AS class, false AS changed FROM files
  WHERE source = $2 AND image_id IS NOT NULL"""
_FAILED = """SELECT DISTINCT image_id FROM failures WHERE recipe_id = $1
  AND (stage <> 'read' AND NOT $3 OR failed_at >= coalesce($4::TIMESTAMPTZ, 'infinity'))"""
# Not an anti join: over an emptied table, DuckDB 1.5.5 returns nothing for one by ranges.
_FREE = """WHERE NOT EXISTS (FROM leases l WHERE recipe_id = $1 AND expires_at > $7
                             AND m.image_id BETWEEN l.first AND l.last)"""

# The images of a source once the scan in _listing and _reads is committed.
_AFTER_SCAN = """SELECT r.image_id, path, class, k.path IS NOT NULL AS changed FROM _reads r JOIN _listing USING (path)
    LEFT JOIN (SELECT path FROM files WHERE source = $2) k USING (path) WHERE r.image_id IS NOT NULL
  UNION ALL
  SELECT f.image_id, path, l.class, false FROM files f JOIN _listing l USING (path) ANTI JOIN _reads USING (path)
    WHERE source = $2 AND f.image_id IS NOT NULL"""
# Looks up the few missing images in the big tables, never the other way round.
_REASONS = """SELECT coalesce(m.class, labelled.class) AS class, CASE WHEN failed.image_id IS NOT NULL THEN 'retry'
      WHEN {lost} THEN 'feature_lost' WHEN {stale} THEN 'pixels_changed'
      WHEN elsewhere.image_id IS NOT NULL THEN 'new_recipe'
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
    """Count the images of a source with and without a feature."""
    found = lake.rows(
        f"""SELECT count(*) FILTER (p.image_id IS NULL AND f.image_id IS NULL), count(p.image_id)
            FROM (SELECT DISTINCT image_id FROM ({_CURRENT}))
            LEFT JOIN (SELECT image_id FROM features WHERE recipe_id = $1 AND {_not_in(wanted.lost)}) p
              USING (image_id)
            LEFT JOIN ({_FAILED}) f USING (image_id)""",
        wanted.parameters,
    )
    return Counts(*found[0])


def list_missing(
    lake: Lake, wanted: FeatureRequest, limit: int, *, after: str = FIRST_ID, free_at: datetime | None = None
) -> list[LocatedImage]:
    """List the first images after ``after`` that lack a feature, ordered by image_id.

    At most ``limit`` files are considered; of several copies of an image the first counts. Images that a run has
    leased at ``free_at`` are left out.
    """
    free, more = (_FREE, [free_at]) if free_at else ("", [])
    rows = lake.rows(
        f"""SELECT image_id::VARCHAR, path
            FROM (SELECT image_id, path FROM ({_CURRENT} AND image_id > $6::UUID) {_without_feature(wanted)}) m {free}
            ORDER BY image_id, path LIMIT $5""",
        [*wanted.parameters, limit, after, *more],
    )
    firsts: dict[str, str] = {}
    for image_id, path in rows:
        firsts.setdefault(image_id, path)
    return [LocatedImage(image_id, Locator(path)) for image_id, path in firsts.items()]


def explain_missing(lake: Lake, wanted: FeatureRequest, scan: Scan | None = None) -> list[Missing]:
    """Count the missing features by class and reason: now, or once a scan is committed."""
    missing = f"""SELECT image_id, min(class) AS class, bool_or(changed) AS changed
                  FROM ({_AFTER_SCAN if scan else _CURRENT}) {_without_feature(wanted, scan)} GROUP BY image_id"""
    stale = "m.image_id IN (SELECT image_id FROM _stale)" if scan else "false"
    reasons = _REASONS.format(lost=_was_in(wanted.lost), there=_not_in(wanted.lost), stale=stale)
    with _with_scan(lake, scan):
        rows = lake.rows(f"WITH missing AS MATERIALIZED ({missing}) {reasons}", wanted.parameters)
    return [Missing(*row) for row in rows]


def count_present(lake: Lake, wanted: FeatureRequest, scan: Scan | None = None) -> int:
    """Count the images that have a feature: now, or once a scan is committed."""
    sql = f"""SELECT count(DISTINCT image_id) FROM ({_AFTER_SCAN if scan else _CURRENT})
              SEMI JOIN ({_valid(wanted, scan)}) USING (image_id)"""
    with _with_scan(lake, scan):
        return int(lake.value(sql, wanted.parameters[:2]))


def _without_feature(wanted: FeatureRequest, scan: Scan | None = None) -> str:
    """Return the SQL joins that select images that lack a requested feature."""
    return f"""ANTI JOIN ({_valid(wanted, scan)}) USING (image_id)
               ANTI JOIN ({_FAILED}) USING (image_id)"""


def _valid(wanted: FeatureRequest, scan: Scan | None) -> str:
    """Return the SQL query for the images that have a feature, less those whose feature a scan will drop."""
    kept = f" AND NOT ({CHANGED})" if scan else ""
    return f"SELECT image_id FROM features WHERE recipe_id = $1 AND {_not_in(wanted.lost)}{kept}"


def _not_in(lost: Sequence[LostFile]) -> str:
    """Return the SQL condition that keeps DuckDB from opening lost files."""
    return f"filename NOT IN ({', '.join(quote(file.name) for file in lost)})" if lost else "true"


def _was_in(lost: Sequence[LostFile]) -> str:
    """Return the SQL condition that an image's feature may have been in a lost file: shards are ranges."""
    ranges = [f"m.image_id BETWEEN '{UUID(file.first)}' AND '{UUID(file.last)}'" for file in lost]
    return f"({' OR '.join(ranges)})" if ranges else "false"


@contextmanager
def _with_scan(lake: Lake, scan: Scan | None) -> Iterator[None]:
    if scan is None:
        yield
        return
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads):
        stale = lake.table(STALE)
        with lake.temporary_tables(_stale=stale):
            yield

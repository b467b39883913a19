"""Checks of rows that cannot be right: what is wrong with them, in SQL, and what takes them out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from storage.lake.lake import Lake

MOST = 100
REMOVED = "the row is deleted"
AGAIN = "the row is deleted, and the next run computes it"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which check found it, what it is with the file or row it names, and its repair.

    ``fix`` does the repair; None if only a person can.
    """

    check: str
    what: str
    repair: str
    fix: Callable[[], object] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class RowCheck:
    """A check of one table: ``wrong`` holds of rows that are; ``key`` names one; ``$now`` is the time.

    ``others`` are the tables that the condition reads, too; ``fixable`` is false where only a person can repair it.
    """

    name: str
    table: str
    key: str
    wrong: str
    problem: str
    repair: str
    others: tuple[str, ...] = ()
    fixable: bool = True

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it reads."""
        return (self.table, *self.others)

    def find(self, lake: Lake, now: datetime) -> list[str]:
        """Name the wrong rows, the first hundred each and the rest as their number."""
        rows = lake.rows(
            f"SELECT DISTINCT {self.key}, count(*) OVER () FROM {self.table} WHERE {self._condition(now)} "
            f"ORDER BY 1 LIMIT {MOST}"
        )
        names = [f"{self.table} of {name}: {self.problem}" for name, _ in rows]
        more = rows[0][1] - len(rows) if rows else 0
        return [*names, f"{self.table}: {more} more rows: {self.problem}"] if more > 0 else names

    def fix(self, lake: Lake, now: datetime) -> None:
        """Delete them."""
        lake.commit(lambda: lake.execute(f"DELETE FROM {self.table} WHERE {self._condition(now)}"))

    def _condition(self, now: datetime) -> str:
        return self.wrong.replace("$now", f"TIMESTAMPTZ '{now.isoformat()}'")


IMAGE = "concat('image ', image_id)"
MODEL = "concat('model ', name, ' version ', version)"
PATH = "concat('path ', path)"
TRAINING = "concat('training ', training_id)"
NO_NUMBER = "(NOT isfinite(list_sum(vector)) OR list_count(vector) < len(vector))"
NOT_AS_LONG = "is not as long as its recipe says"
LEFT_ONE = "all rows but one are deleted"
FEATURE = "concat('image ', image_id, ', recipe ', recipe_id)"
BACKUP = "restore it from a backup"
KNOWN = "image_id IN (SELECT image_id FROM images WHERE image_id IS NOT NULL)"
NO_IMAGE = f"(image_id IS NULL OR NOT {KNOWN})"
UNKNOWN_IMAGE = f"image_id IS NOT NULL AND NOT {KNOWN}"
UNKNOWN_RECIPE = "recipe_id NOT IN (SELECT recipe_id FROM recipes WHERE recipe_id IS NOT NULL)"
UNKNOWN_TRAINING = "training_id NOT IN (SELECT training_id FROM heads)"
UNKNOWN_VERSION = "(name, version) NOT IN (SELECT (name, version) FROM models)"
ONCE = {
    "features": ("recipe_id", "image_id"),
    "images": ("image_id",),
    "files": ("source", "path"),
    "labels": ("label_set", "image_id", "class", "source"),
    "recipes": ("recipe_id",),
    "heads": ("training_id",),
    "training_sets": ("training_id", "image_id", "class"),
    "models": ("name", "version"),
    "predictions": ("name", "version", "image_id", "class"),
    "tags": ("tag",),
    "canaries": ("recipe_id", "probe"),
}
"""What there is one row of, at most."""
OTHER_LENGTH = """EXISTS (FROM recipes r WHERE r.recipe_id = features.recipe_id
                          AND len(vector) IS DISTINCT FROM r.dim)"""

CANARY = "concat('probe ', probe, ', recipe ', recipe_id)"
OTHER_VECTOR = f"""EXISTS (FROM features f WHERE f.recipe_id = canaries.recipe_id
                           AND f.image_id = TRY_CAST(probe AS UUID)
                           AND CASE WHEN {NO_NUMBER.replace("vector", "f.vector")}
                                      OR {NO_NUMBER.replace("vector", "canaries.vector")}
                                      OR len(f.vector) <> len(canaries.vector) THEN false
                               ELSE list_distance(f.vector, canaries.vector)
                                    > tolerance * sqrt(list_inner_product(f.vector, f.vector)) END)"""
"""That a canary is one of the lake's images, and its feature another vector; others have checks of their own."""


def _is_no_object(column: str) -> str:
    """Say in SQL that a text is no JSON object."""
    return f"coalesce(CASE WHEN json_valid({column}) THEN json_type({column}) END, '') <> 'OBJECT'"


def _name(keys: tuple[str, ...]) -> str:
    """Name a row by its key, in SQL."""
    parts = ", ', ', ".join(f"'{key.removesuffix('_id')} ', {key}" for key in reversed(keys))
    return f"concat({parts})"


def _foreign(noun: str, table: str, key: str, unknown: str, repair: str = REMOVED) -> RowCheck:
    """Check that what a row names is in the table of such things."""
    name = "foreign training" if noun == "head" else f"foreign {noun}"
    problem = f"the lake has no such {noun}"
    return RowCheck(name, table, key, unknown, problem, repair, (f"{noun}s",), fixable=repair != BACKUP)


def _twice(table: str, keys: tuple[str, ...]) -> str:
    """Say in SQL that an earlier row has the same key."""
    same = " AND ".join(f"d.{key} = {table}.{key}" for key in keys)
    several = f"SELECT {', '.join(keys)}, min(rowid) AS first FROM {table} GROUP BY ALL HAVING count(*) > 1"
    return f"EXISTS (FROM ({several}) d WHERE {same} AND {table}.rowid <> d.first)"


NO_RECORD = f"({_is_no_object('settings')} OR {_is_no_object('metrics')})"
"""That nobody can read what a head was trained with, or measured to be."""
CHECKS = (
    RowCheck("foreign image", "images", IMAGE, "image_id IS NULL", "names none", REMOVED),
    _foreign("image", "features", FEATURE, NO_IMAGE),
    _foreign("image", "labels", IMAGE, NO_IMAGE),
    _foreign("image", "files", PATH, UNKNOWN_IMAGE, "the row is deleted, and the next scan reads the file"),
    _foreign("image", "training_sets", IMAGE, NO_IMAGE),
    _foreign("image", "predictions", IMAGE, NO_IMAGE),
    _foreign(
        "image",
        "canaries",
        "concat('image ', probe)",
        "image IS NULL AND probe NOT IN (SELECT image_id::VARCHAR FROM images)",
    ),
    _foreign("recipe", "features", FEATURE, UNKNOWN_RECIPE),
    _foreign("recipe", "canaries", "concat('probe ', probe)", UNKNOWN_RECIPE),
    _foreign("recipe", "failures", PATH, UNKNOWN_RECIPE),
    _foreign("recipe", "recipe_requests", "concat('request ', request_id)", UNKNOWN_RECIPE),
    _foreign("recipe", "heads", TRAINING, UNKNOWN_RECIPE, BACKUP),
    _foreign("head", "models", MODEL, UNKNOWN_TRAINING, BACKUP),
    _foreign("model", "predictions", MODEL, UNKNOWN_VERSION),
    RowCheck(
        "tag",
        "tags",
        "concat('tag ', tag)",
        "snapshot NOT IN (SELECT snapshot_id FROM ducklake_snapshots('lake'))",
        "names a snapshot that has expired or never was",
        "the tag is forgotten",
    ),
    _foreign("head", "training_sets", TRAINING, UNKNOWN_TRAINING),
    *(
        RowCheck("duplicate", table, _name(keys), _twice(table, keys), "is there more than once", LEFT_ONE)
        for table, keys in ONCE.items()
    ),
    RowCheck("length", "features", FEATURE, OTHER_LENGTH, NOT_AS_LONG, AGAIN, ("recipes",)),
    RowCheck("numbers", "features", FEATURE, NO_NUMBER, "has a number that is none", AGAIN),
    RowCheck(
        "length", "canaries", CANARY, OTHER_LENGTH.replace("features", "canaries"), NOT_AS_LONG, REMOVED, ("recipes",)
    ),
    RowCheck("numbers", "canaries", CANARY, NO_NUMBER, "has a number that is none", REMOVED),
    RowCheck(
        "vector",
        "canaries",
        CANARY,
        f"image IS NULL AND {OTHER_VECTOR}",
        "is not the vector that its image's feature is",
        "`--deep --repair` mends the feature where that is wrong; a wrong canary comes from a backup",
        ("features",),
        fixable=False,
    ),
    RowCheck("json", "heads", TRAINING, NO_RECORD, "its settings or metrics are no JSON", BACKUP, fixable=False),
    RowCheck("json", "canaries", CANARY, _is_no_object("made_with"), "what made it is no JSON", REMOVED),
    RowCheck(
        "lease",
        "leases",
        "concat('holder ', holder)",
        "expires_at <= $now",
        "has expired: its run is dead",
        "it ends, and its images are free",
    ),
)

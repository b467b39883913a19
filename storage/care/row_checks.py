"""Checks for invalid rows: the condition, in SQL, and the repair."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from storage.lake.lake import Lake
from storage.plural import pluralize

MAX_NAMED = 100
REMOVED = "the row is deleted"
AGAIN = "the row is deleted, and the next run computes it again"


@dataclass(frozen=True)
class Finding:
    """One problem: the check that found it, the file or row with what is wrong, and the repair.

    ``fix`` does the repair; None if only a person can.
    """

    check: str
    what: str
    repair: str
    fix: Callable[[], object] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class RowCheck:
    """A check of one table. ``invalid`` is the SQL condition of invalid rows, where ``$now`` is the time.

    ``key`` is the SQL that names a row; ``others`` are further tables that the condition reads.
    ``fixable`` is false if only a person can repair it.
    """

    name: str
    table: str
    key: str
    invalid: str
    problem: str
    repair: str
    others: tuple[str, ...] = ()
    fixable: bool = True

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the check reads."""
        return (self.table, *self.others)

    def find(self, lake: Lake, now: datetime) -> list[str]:
        """Describe the invalid rows: the first hundred one by one, then the number of the others."""
        rows = lake.rows(
            f"SELECT DISTINCT {self.key}, count(*) OVER () FROM {self.table} WHERE {self._condition(now)} "
            f"ORDER BY 1 LIMIT {MAX_NAMED}"
        )
        names = [f"{self.table} of {name}: {self.problem}" for name, _ in rows]
        more = rows[0][1] - len(rows) if rows else 0
        return [*names, f"{self.table}: {pluralize(more, 'more row')}: {self.problem}"] if more > 0 else names

    def fix(self, lake: Lake, now: datetime) -> None:
        """Delete the invalid rows."""
        lake.commit(lambda: lake.execute(f"DELETE FROM {self.table} WHERE {self._condition(now)}"))

    def _condition(self, now: datetime) -> str:
        return self.invalid.replace("$now", f"TIMESTAMPTZ '{now.isoformat()}'")


IMAGE = "concat('image ', image_id)"
MODEL = "concat('model ', name, ' version ', version)"
PATH = "concat('path ', path)"
TRAINING = "concat('training ', training_id)"
NOT_FINITE = "(NOT isfinite(list_sum(vector)) OR list_count(vector) < len(vector))"
WRONG_LENGTH = "does not have the length of its recipe"
KEEP_ONE = "all rows but one are deleted"
FEATURE = "concat('image ', image_id, ', recipe ', recipe_id)"
BACKUP = "restore it from a backup"
KNOWN = "image_id IN (SELECT image_id FROM images WHERE image_id IS NOT NULL)"
NO_IMAGE = f"(image_id IS NULL OR NOT {KNOWN})"
UNKNOWN_IMAGE = f"image_id IS NOT NULL AND NOT {KNOWN}"
UNKNOWN_RECIPE = "recipe_id NOT IN (SELECT recipe_id FROM recipes WHERE recipe_id IS NOT NULL)"
UNKNOWN_TRAINING = "training_id NOT IN (SELECT training_id FROM heads)"
UNKNOWN_VERSION = "(name, registry, version) NOT IN (SELECT (name, registry, version) FROM models)"
KEYS = {
    "features": ("recipe_id", "image_id"),
    "images": ("image_id",),
    "files": ("source", "path"),
    "labels": ("label_set", "image_id", "class", "source"),
    "recipes": ("recipe_id",),
    "heads": ("training_id",),
    "training_sets": ("training_id", "image_id", "class"),
    "splits": ("label_set", "scheme", "image_id"),
    "models": ("name", "registry", "version"),
    "predictions": ("name", "registry", "version", "image_id", "class"),
    "gate_rows": ("name", "registry", "version", "image_id", "class"),
    "tags": ("tag",),
    "canaries": ("recipe_id", "probe"),
}
"""The unique key of each table."""
OTHER_LENGTH = """EXISTS (FROM recipes r WHERE r.recipe_id = features.recipe_id
                          AND len(vector) IS DISTINCT FROM r.dim)"""

CANARY = "concat('probe ', probe, ', recipe ', recipe_id)"
OTHER_VECTOR = f"""EXISTS (FROM features f WHERE f.recipe_id = canaries.recipe_id
                           AND f.image_id = TRY_CAST(probe AS UUID)
                           AND CASE WHEN {NOT_FINITE.replace("vector", "f.vector")}
                                      OR {NOT_FINITE.replace("vector", "canaries.vector")}
                                      OR len(f.vector) <> len(canaries.vector) THEN false
                               ELSE list_distance(f.vector, canaries.vector)
                                    > tolerance * sqrt(list_inner_product(f.vector, f.vector)) END)"""
"""Condition that a canary is an image of the lake and differs from its feature; invalid vectors have other checks."""


def _is_not_object(column: str) -> str:
    """Return the SQL condition that a text is not a JSON object."""
    return f"coalesce(CASE WHEN json_valid({column}) THEN json_type({column}) END, '') <> 'OBJECT'"


def _name(keys: tuple[str, ...]) -> str:
    """Return the SQL that names a row by its key."""
    parts = ", ', ', ".join(f"'{key.removesuffix('_id')} ', {key}" for key in reversed(keys))
    return f"concat({parts})"


def _foreign(noun: str, table: str, key: str, unknown: str, repair: str = REMOVED) -> RowCheck:
    """Check that what a row refers to exists."""
    name = "foreign training" if noun == "head" else f"foreign {noun}"
    problem = f"the lake has no such {noun}"
    return RowCheck(name, table, key, unknown, problem, repair, (f"{noun}s",), fixable=repair != BACKUP)


def _is_duplicate(table: str, keys: tuple[str, ...]) -> str:
    """Return the SQL condition that an earlier row has the same key."""
    same = " AND ".join(f"d.{key} = {table}.{key}" for key in keys)
    several = f"SELECT {', '.join(keys)}, min(rowid) AS first FROM {table} GROUP BY ALL HAVING count(*) > 1"
    return f"EXISTS (FROM ({several}) d WHERE {same} AND {table}.rowid <> d.first)"


NO_RECORD = f"({' OR '.join(_is_not_object(column) for column in ('settings', 'hyperparameters', 'metrics'))})"
"""Condition that the record of a head cannot be read."""
CHECKS = (
    RowCheck("foreign image", "images", IMAGE, "image_id IS NULL", "names none", REMOVED),
    _foreign("image", "features", FEATURE, NO_IMAGE),
    _foreign("image", "labels", IMAGE, NO_IMAGE),
    _foreign("image", "files", PATH, UNKNOWN_IMAGE, "the row is deleted, and the next scan reads the file"),
    _foreign("image", "training_sets", IMAGE, NO_IMAGE),
    _foreign("image", "splits", IMAGE, NO_IMAGE),
    _foreign("image", "predictions", IMAGE, NO_IMAGE),
    _foreign("image", "gate_rows", IMAGE, NO_IMAGE),
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
    _foreign("model", "promotions", MODEL, UNKNOWN_VERSION),
    _foreign("model", "gate_rows", MODEL, UNKNOWN_VERSION),
    RowCheck(
        "tag",
        "tags",
        "concat('tag ', tag)",
        "snapshot NOT IN (SELECT snapshot_id FROM ducklake_snapshots('lake'))",
        "its snapshot has expired or never existed",
        "the tag is deleted",
    ),
    _foreign("head", "training_sets", TRAINING, UNKNOWN_TRAINING),
    *(
        RowCheck("duplicate", table, _name(keys), _is_duplicate(table, keys), "exists more than once", KEEP_ONE)
        for table, keys in KEYS.items()
    ),
    RowCheck("length", "features", FEATURE, OTHER_LENGTH, WRONG_LENGTH, AGAIN, ("recipes",)),
    RowCheck("numbers", "features", FEATURE, NOT_FINITE, "has a value that is not a number", AGAIN),
    RowCheck(
        "length", "canaries", CANARY, OTHER_LENGTH.replace("features", "canaries"), WRONG_LENGTH, REMOVED, ("recipes",)
    ),
    RowCheck("numbers", "canaries", CANARY, NOT_FINITE, "has a value that is not a number", REMOVED),
    RowCheck(
        "vector",
        "canaries",
        CANARY,
        f"image IS NULL AND {OTHER_VECTOR}",
        "differs from the feature of its image",
        "`--deep --repair` repairs a wrong feature; restore a wrong canary from a backup",
        ("features",),
        fixable=False,
    ),
    RowCheck(
        "json",
        "heads",
        TRAINING,
        NO_RECORD,
        "its settings, hyperparameters or metrics are not JSON",
        BACKUP,
        fixable=False,
    ),
    RowCheck("json", "canaries", CANARY, _is_not_object("made_with"), "made_with is not JSON", REMOVED),
    RowCheck(
        "lease",
        "leases",
        "concat('holder ', holder)",
        "expires_at <= $now",
        "has expired: its run is dead",
        "it ends, and other runs may embed its images",
    ),
)

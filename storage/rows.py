"""Rows that cannot be right: what is wrong with them, in SQL, and what takes them out."""

from dataclasses import dataclass
from datetime import datetime

from storage.lake import Lake

MOST = 100
REMOVED = "the row is deleted"
AGAIN = "the row is deleted, and the next run computes it"


@dataclass(frozen=True)
class RowCheck:
    """A check of one table: ``wrong`` holds of rows that are; ``key`` names one; ``$now`` is the time.

    ``others`` are the tables that the condition reads, too.
    """

    name: str
    table: str
    key: str
    wrong: str
    problem: str
    repair: str
    others: tuple[str, ...] = ()

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

    def mend(self, lake: Lake, now: datetime) -> None:
        """Delete them."""
        lake.commit(lambda: lake.execute(f"DELETE FROM {self.table} WHERE {self._condition(now)}"))

    def _condition(self, now: datetime) -> str:
        return self.wrong.replace("$now", f"TIMESTAMPTZ '{now.isoformat()}'")


IMAGE = "concat('image ', image_id)"
FEATURE = "concat('image ', image_id, ', recipe ', recipe_id)"
UNKNOWN_IMAGE = "image_id IS NOT NULL AND image_id NOT IN (SELECT image_id FROM images)"
UNKNOWN_RECIPE = "recipe_id NOT IN (SELECT recipe_id FROM recipes)"
TWICE = """EXISTS (FROM (SELECT recipe_id AS r, image_id AS i, min(rowid) AS first FROM features
                         GROUP BY ALL HAVING count(*) > 1) WHERE r = recipe_id AND i = image_id AND rowid <> first)"""
OTHER_LENGTH = """EXISTS (FROM recipes r WHERE r.recipe_id = features.recipe_id
                          AND len(vector) IS DISTINCT FROM r.dim)"""

CHECKS = (
    *(
        RowCheck("foreign image", table, key, UNKNOWN_IMAGE, "the lake has no such image", repair, ("images",))
        for table, key, repair in (
            ("features", FEATURE, REMOVED),
            ("labels", IMAGE, REMOVED),
            ("files", "concat('path ', path)", "the row is deleted, and the next scan reads the file"),
            ("training_sets", IMAGE, REMOVED),
            ("predictions", IMAGE, REMOVED),
        )
    ),
    RowCheck(
        "foreign image",
        "canaries",
        "concat('image ', probe)",
        "image IS NULL AND probe NOT IN (SELECT image_id::VARCHAR FROM images)",
        "the lake has no such image",
        REMOVED,
        ("images",),
    ),
    *(
        RowCheck("foreign recipe", table, key, UNKNOWN_RECIPE, "the lake has no such recipe", REMOVED, ("recipes",))
        for table, key in (("features", FEATURE), ("canaries", "concat('probe ', probe)"))
    ),
    RowCheck(
        "foreign training",
        "training_sets",
        "concat('training ', training_id)",
        "training_id NOT IN (SELECT training_id FROM heads)",
        "the lake has no such head",
        REMOVED,
        ("heads",),
    ),
    RowCheck("duplicate", "features", FEATURE, TWICE, "is there more than once", "all rows but one are deleted"),
    RowCheck("length", "features", FEATURE, OTHER_LENGTH, "is not as long as its recipe says", AGAIN, ("recipes",)),
    RowCheck("numbers", "features", FEATURE, "NOT isfinite(list_sum(vector))", "has a number that is none", AGAIN),
    RowCheck(
        "lease",
        "leases",
        "concat('holder ', holder)",
        "expires_at <= $now",
        "has expired: its run is dead",
        "it ends, and its images are free",
    ),
)

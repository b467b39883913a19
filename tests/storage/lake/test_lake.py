"""The lake: created once, refused when newer, readable at every snapshot, opened wherever it is moved."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from storage.errors import LakeError, LakeTooNewError, QueryError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.lake.migrate import VERSION
from storage.locations.home import Home, open_home
from storage.names import SourceName
from storage.tables.features import commit_shard, read_features
from storage.vectors.feature_file import Matrix, Shard, write_features
from tests.lakes import PASSWORD, Postgres

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = "r" * 32
IDS = [f"{number:032x}" for number in range(8)]
VECTORS: Matrix = np.arange(8 * 4, dtype=np.float32).reshape(8, 4)

OPEN_EACH = """
import sys
from pathlib import Path
from storage.lake.attach import open_lake
from storage.locations.home import open_home
print("ready", flush=True)
for line in sys.stdin:
    root, catalog, data = line.strip().split("|")
    with open_lake(open_home(Path(root), catalog or None, data or None)) as lake:
        rows = lake.value("SELECT count(*) FROM guard") + lake.value("SELECT count(*) FROM lake_version")
    print(rows, flush=True)
"""

WRITES = (
    "DELETE FROM features",
    "INSERT INTO guard VALUES (7)",
    "UPDATE lake_version SET version = 2",
    "CREATE TABLE mine (n INTEGER)",
    "DROP TABLE features",
    "COMMENT ON TABLE images IS 'mine'",
    "CALL ducklake_expire_snapshots('lake', older_than => now() + INTERVAL 1 DAY)",
)


@pytest.fixture
def here(tmp_path: Path) -> Home:
    """A home of the embedded default."""
    return open_home(tmp_path / "home")


def add_features(lake: Lake) -> None:
    file = write_features(lake.home, RECIPE, IDS, VECTORS)
    commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), len(IDS), 1.0), NOW)


def add_recipe(lake: Lake, name: str) -> None:
    lake.commit(lambda: lake.execute("INSERT INTO recipes (recipe_id) VALUES (?)", [name]))


def count_recipes(lake: Lake) -> int:
    return int(lake.value("SELECT count(*) FROM recipes"))


def test_processes_that_open_a_new_home_at_once_create_one_lake(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        openers = [stack.enter_context(start_opener()) for _ in range(2)]
        assert [read_line(opener) for opener in openers] == ["ready", "ready"]
        for number in range(6):
            for opener in openers:
                print(tmp_path / f"home-{number}", "", "", sep="|", file=opener.stdin, flush=True)
            assert [read_line(opener) for opener in openers] == ["2", "2"]  # one row of guard, one of lake_version


def test_processes_that_open_an_empty_database_at_once_create_one_lake(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with contextlib.ExitStack() as stack:
        openers = [stack.enter_context(start_opener()) for _ in range(3)]
        assert [read_line(opener) for opener in openers] == ["ready"] * 3
        for _ in range(4):
            catalog = postgres.make_database()
            for opener in openers:
                print(tmp_path / "home", catalog, "", sep="|", file=opener.stdin, flush=True)
            assert [read_line(opener) for opener in openers] == ["2"] * 3


def start_opener() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN_EACH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_line(opener: subprocess.Popen[str]) -> str:
    assert opener.stdout
    line = opener.stdout.readline().strip()
    return line + opener.stdout.read() if line.startswith("Traceback") else line


def test_every_table_view_and_column_has_a_comment(place: Home) -> None:
    with open_lake(place) as lake:
        found = lake.rows("""
            SELECT table_name, '', comment FROM duckdb_tables() WHERE database_name = 'lake' UNION ALL
            SELECT view_name, '', comment FROM duckdb_views() WHERE database_name = 'lake' UNION ALL
            SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = 'lake'
              AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake')""")
    assert {"features", "conflicts"} <= {name for name, _, _ in found}
    assert sorted((name, column) for name, column, comment in found if not comment) == []


def test_a_lake_of_a_later_release_is_refused_naming_both_versions(place: Home) -> None:
    with open_lake(place) as lake:
        lake.commit(lambda: lake.execute("UPDATE lake_version SET version = 97"))
    said = re.compile(rf"version 97, this release reads up to {VERSION}\b")
    with pytest.raises(LakeTooNewError, match=said):
        open_lake(place)
    with pytest.raises(LakeTooNewError, match=said):
        read_lake(place)


def test_opening_a_lake_again_keeps_its_contents(place: Home) -> None:
    with open_lake(place) as lake:
        add_recipe(lake, "kept")
    with open_lake(place) as lake:
        assert lake.rows("SELECT recipe_id FROM recipes") == [("kept",)]
        assert lake.rows("SELECT version FROM lake_version") == [(VERSION,)]


def test_reading_without_a_lake_gives_an_empty_one_and_leaves_nothing(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with read_lake(place) as lake:
        assert count_recipes(lake) == 0
        assert lake.read("FROM conflicts")[1] == []
    assert list(tmp_path.iterdir()) == [scratch]
    assert list(scratch.iterdir()) == []


def test_reading_a_lake_changes_no_file_of_it(here: Home) -> None:
    with open_lake(here) as lake:
        add_features(lake)
    before = read_files(here)
    with read_lake(here) as lake:
        assert lake.value("SELECT count(*) FROM features") == len(IDS)
    assert read_files(here) == before


def read_files(home: Home) -> dict[Path, bytes]:
    sqlites_own = (".sqlite-shm", ".sqlite-wal")  # any reader of a write-ahead log makes them, empty
    return {
        path: path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.suffix not in sqlites_own
    }


def test_a_lake_opened_for_reading_refuses_every_write(place: Home) -> None:
    with open_lake(place) as lake:
        add_features(lake)
        snapshot = lake.snapshot
    with read_lake(place) as lake:
        for statement in WRITES:
            with pytest.raises(QueryError, match=r"(?i)read-only"):
                lake.read(statement)
        with pytest.raises(LakeError, match=r"(?i)read-only"):
            add_recipe(lake, "smuggled")
    with read_lake(place) as lake:
        assert (lake.snapshot, lake.value("SELECT count(*) FROM features")) == (snapshot, len(IDS))


def test_a_snapshot_shows_the_lake_as_it_was(place: Home) -> None:
    with open_lake(place) as lake:
        add_recipe(lake, "first")
        then = lake.snapshot
        add_recipe(lake, "second")
        lake.commit(lambda: lake.execute("DELETE FROM recipes WHERE recipe_id = 'first'"))
    with read_lake(place, then) as past, read_lake(place) as present:
        assert past.rows("SELECT recipe_id FROM recipes") == [("first",)]
        assert present.rows("SELECT recipe_id FROM recipes") == [("second",)]


@pytest.mark.parametrize("snapshot", [-1, 0, 10_000])
def test_a_missing_snapshot_is_refused(place: Home, snapshot: int) -> None:
    open_lake(place).close()
    with pytest.raises(LakeError, match=re.escape(place.lake)):
        read_lake(place, snapshot)


def test_a_home_that_was_moved_opens_in_its_new_place_with_its_features(here: Home, tmp_path: Path) -> None:
    with open_lake(here) as lake:
        add_features(lake)
    moved = open_home(tmp_path / "elsewhere" / "deeper")
    moved.root.parent.mkdir()
    shutil.move(here.root, moved.root)
    with read_lake(moved) as lake:
        assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)
    with open_lake(moved) as lake:
        add_recipe(lake, "after the move")
        assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)
    assert not here.root.exists()


@pytest.mark.parametrize("name", ["it's a 'home'", 'a "home"; 100% é'])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = open_home(tmp_path / name)
    with open_lake(home) as lake:
        add_features(lake)
    with read_lake(home) as lake:
        assert np.array_equal(read_features(lake, RECIPE, IDS), VECTORS)


def test_a_commit_whose_function_raises_leaves_the_lake_as_it_was(place: Home) -> None:
    with open_lake(place) as lake:
        before = lake.snapshot, lake.value("SELECT n FROM guard")

        def give_up() -> None:
            lake.execute("INSERT INTO recipes (recipe_id) VALUES ('half')")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lake.commit(give_up)
        assert (count_recipes(lake), lake.snapshot, lake.value("SELECT n FROM guard")) == (0, *before)
        add_recipe(lake, "whole")
        assert lake.rows("SELECT recipe_id FROM recipes") == [("whole",)]


def test_a_commit_that_the_lake_refuses_leaves_it_as_it_was(place: Home) -> None:
    with open_lake(place) as lake:

        def fail() -> None:
            lake.execute("INSERT INTO recipes (recipe_id) VALUES ('half')")
            lake.execute("INSERT INTO no_such_table VALUES (1)")

        with pytest.raises(LakeError, match="no_such_table"):
            lake.commit(fail)
        assert count_recipes(lake) == 0
        add_recipe(lake, "whole")
        assert count_recipes(lake) == 1


def test_a_home_that_is_a_file_is_refused(here: Home) -> None:
    here.root.write_text("not a folder")
    with pytest.raises(LakeError, match="writable folder"):
        open_lake(here)
    assert here.root.read_text() == "not a folder"


def test_a_home_below_a_file_is_refused(here: Home) -> None:
    here.root.write_text("not a folder")
    with pytest.raises(LakeError, match="writable folder"):
        open_lake(open_home(here.root / "below"))


def test_a_catalog_that_is_not_a_database_is_refused(here: Home) -> None:
    here.root.mkdir()
    here.catalog.write_bytes(b"no database at all" * 100)
    with pytest.raises(LakeError, match="cannot be opened"):
        read_lake(here)


def test_a_long_query_prints_nothing_to_stdout(here: Home) -> None:
    with open_lake(here) as lake:
        assert lake.value("SELECT current_setting('enable_progress_bar')") is False

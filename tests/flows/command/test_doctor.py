"""The doctor finds every way in which a lake can be broken, repairs it, and finds nothing wrong with a sound lake."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from flows.operations.doctor import CheckResult, examine
from storage.care.compaction import prepare_deletes
from storage.errors import LakeError
from storage.lake.attach import open_lake, read_lake
from storage.lake.checksums import record_checksums
from storage.lake.ducklake_files import list_live
from storage.locations.home import Home, open_home
from storage.locations.parquet_files import open_data
from storage.names import SourceName
from storage.tables.features import commit_shard
from storage.tables.recipes import save_recipe
from storage.vectors.feature_file import Shard, write_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tests.counting import Tally, decide_recipe
from tests.first_run import FirstRun
from tests.lakes import list_files
from tests.servers import ROOT

NOW = datetime.now(UTC)
UNKNOWN_IMAGE = "00000000-0000-0000-0000-00000000beef"


@pytest.fixture
def template(first_run: FirstRun) -> Path:
    """A home after one run."""
    return first_run.folder / "home"


@pytest.fixture
def home(template: Path, tmp_path: Path, tally: Tally) -> Home:  # noqa: ARG001
    """A copy of that home, to break."""
    return open_home(Path(shutil.copytree(template, tmp_path / "home")))


def write(sql: str) -> Callable[[Home], None]:
    def do(home: Home) -> None:
        with open_lake(home) as lake:
            lake.commit(lambda: lake.execute(sql))

    return do


def find_file(home: Home) -> Path:
    with read_lake(home) as lake:
        return home.data / next(file.path for file in list_live(lake) if file.table == "features")


def delete_file(home: Home) -> None:
    find_file(home).unlink()


def truncate(home: Home) -> None:
    os.truncate(find_file(home), 300)


def flip_bit(home: Home) -> None:
    file = find_file(home)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def leave_orphan(home: Home) -> None:
    for name in ("killed.unfinished", "killed.parquet"):
        file = find_file(home).with_name(name)
        file.write_bytes(b"half")
        os.utime(file, (0, 0))


def lose_head(home: Home) -> None:
    next(home.heads.glob("*/head.safetensors")).unlink()


def flush(home: Home, table: str) -> list[Path]:
    """Write a table's rows to Parquet files and return these."""
    with open_lake(home) as lake:
        lake.rows(f"CALL ducklake_flush_inlined_data('lake', table_name => '{table}')")
        return [home.data / file.path for file in list_live(lake) if file.table == table]


def lose(table: str) -> Callable[[Home], None]:
    def do(home: Home) -> None:
        for file in flush(home, table):
            file.unlink()

    return do


def lose_deletes(home: Home) -> None:
    with open_lake(home) as lake:
        prepare_deletes(lake)
        for table in ("features", "training_sets", "predictions"):
            lake.commit(partial(lake.execute, f"DELETE FROM {table} WHERE image_id = {FIRST}"))
    next(home.data.glob("main/features/**/*-delete.parquet")).unlink()


def truncate_head(home: Home) -> None:
    os.truncate(next(home.heads.glob("*/head.safetensors")), 100)


def truncate_metrics(home: Home) -> None:
    os.truncate(next(home.heads.glob("*/evaluation.json")), 100)


def add_canary(vector: str, made_with: str = "{}", times: int = 1) -> Callable[[Home], None]:
    """Record a canary of one image, whose vector is an expression on that image's feature."""
    return write(
        f"""INSERT INTO canaries SELECT recipe_id, image_id::VARCHAR, NULL, {vector}, 0.01, '{made_with}', 9, now()
            FROM features, range({times}) WHERE image_id = (SELECT min(image_id) FROM features)"""
    )


def flip_head(home: Home) -> None:
    file = next(home.heads.glob("*/head.safetensors"))
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)


def change_backbone(home: Home) -> None:
    file = next(home.backbones.glob("*/weights*"))
    file.write_bytes(file.read_bytes() + b"!")


ONE = "(SELECT min(image_id) FROM features)"
FIRST = "(SELECT min(image_id) FROM images)"
REPEATED = ("images", "labels", "files", "recipes", "heads", "training_sets", "models", "predictions")
WAYS: dict[str, tuple[str, Callable[[Home], None]]] = {
    "deleted file": ("file", delete_file),
    "truncated file": ("file", truncate),
    "flipped bit": ("file", flip_bit),
    "dropped row": ("lost row", write(f"DELETE FROM features WHERE image_id = {ONE}")),
    "foreign row": (
        "foreign image",
        write(f"INSERT INTO features SELECT recipe_id, '{UNKNOWN_IMAGE}'::UUID, vector FROM features LIMIT 1"),
    ),
    "foreign label": (
        "foreign image",
        write(f"INSERT INTO labels VALUES ('photos', '{UNKNOWN_IMAGE}', 'red', 'x', now())"),
    ),
    "foreign file": (
        "foreign image",
        write(f"INSERT INTO files (source, path, image_id) VALUES ('photos', 'x', '{UNKNOWN_IMAGE}')"),
    ),
    "foreign prediction": (
        "foreign image",
        write(f"INSERT INTO predictions SELECT * REPLACE ('{UNKNOWN_IMAGE}' AS image_id) FROM predictions LIMIT 1"),
    ),
    "foreign recipe": (
        "foreign recipe",
        write("INSERT INTO features SELECT 'nobody', image_id, vector FROM features LIMIT 1"),
    ),
    "foreign training": (
        "foreign training",
        write("INSERT INTO training_sets SELECT 'nobody', image_id, class, split FROM training_sets LIMIT 1"),
    ),
    "duplicate": ("duplicate", write("INSERT INTO features SELECT * FROM features LIMIT 2")),
    "wrong length": ("length", write(f"UPDATE features SET vector = [1.0, 2.0] WHERE image_id = {ONE}")),
    "vector of NaN": (
        "numbers",
        write(f"UPDATE features SET vector = list_transform(vector, lambda x: 'nan'::FLOAT) WHERE image_id = {ONE}"),
    ),
    "stale lease": (
        "lease",
        write(f"INSERT INTO leases VALUES ('r', '{UNKNOWN_IMAGE}', '{UNKNOWN_IMAGE}', 'h', '2020-01-01', NULL)"),
    ),
    "orphan": ("orphan", leave_orphan),
    "lost head": ("head", lose_head),
    "changed backbone": ("backbone", change_backbone),
    **{f"repeated {name}": ("duplicate", write(f"INSERT INTO {name} FROM {name} LIMIT 1")) for name in REPEATED},
    "unreadable head": ("head", truncate_head),
    "flipped bit of a head": ("head", flip_head),
    "unreadable metrics of a head": ("head", truncate_metrics),
    "short canary": ("length", add_canary("vector[2:]")),
    "canary without numbers": ("numbers", add_canary("list_transform(vector, lambda x: 'nan'::FLOAT)")),
    "canary with unreadable versions": ("json", add_canary("vector", "{torch")),
    "repeated canary": ("duplicate", add_canary("vector", times=2)),
    "no guard": ("guard", write("DELETE FROM guard")),
    "several guards": ("guard", write("INSERT INTO guard VALUES (7)")),
    "lost file of seals": ("file", lose("checksums")),
    "lost file of shards": ("file", lose("shards")),
    "lost list of deleted rows": ("file", lose_deletes),
    "image without an id": ("foreign image", write("INSERT INTO images (format) VALUES ('PNG')")),
    "feature of no image": (
        "foreign image",
        write("INSERT INTO features SELECT recipe_id, NULL, vector FROM features LIMIT 1"),
    ),
    "null in a vector": (
        "numbers",
        write(f"UPDATE features SET vector = list_append(vector[2:], NULL) WHERE image_id = {ONE}"),
    ),
    "failure of an unknown recipe": (
        "foreign recipe",
        write("INSERT INTO failures VALUES ('photos', 'x', NULL, 'nobody', 'decode', '', now())"),
    ),
    "settings of an unknown recipe": ("foreign recipe", write("UPDATE recipe_requests SET recipe_id = 'nobody'")),
    "prediction of an unknown model": (
        "foreign model",
        write("INSERT INTO predictions SELECT 'nobody', * EXCLUDE (name) FROM predictions LIMIT 1"),
    ),
    "tag of an unknown snapshot": ("tag", write("INSERT INTO tags VALUES ('release-1', 999, now())")),
    "wrong columns of a recipe": ("recipe", write("UPDATE recipes SET dim = 7, weights = 'x'")),
    "lost recipe": ("recipe", write("DELETE FROM recipes")),
}


def checks(outcomes: list[CheckResult]) -> set[str]:
    return {outcome.finding.check for outcome in outcomes}


def test_an_intact_lake_has_no_findings(home: Home) -> None:
    assert examine(home, NOW, deep=True) == []


def test_a_home_without_a_lake_is_refused(home: Home) -> None:
    with pytest.raises(LakeError, match=r"nothing: has no lake\. Check --home"):
        examine(open_home(home.root / "nothing"), NOW, deep=True, repair=True)


@pytest.mark.parametrize("way", WAYS)
def test_each_kind_of_damage_is_found_and_repaired(home: Home, way: str) -> None:
    check, break_ = WAYS[way]
    break_(home)
    found = examine(home, NOW)
    assert checks(found) == {check}, found
    assert not any(outcome.repaired for outcome in found)
    mended = examine(home, NOW, repair=True)
    assert check in checks(mended)
    assert all(outcome.repaired for outcome in mended), mended
    assert examine(home, NOW) == []


def test_a_lost_recipe_is_restored_without_losing_features(home: Home) -> None:
    with read_lake(home) as lake:
        before = lake.rows("SELECT * EXCLUDE (made_at) FROM recipes"), lake.value("SELECT count(*) FROM features")
    write("DELETE FROM recipes")(home)
    examine(home, NOW, repair=True)
    with read_lake(home) as lake:
        after = lake.rows("SELECT * EXCLUDE (made_at) FROM recipes"), lake.value("SELECT count(*) FROM features")
    assert after == before


def test_a_lost_guard_file_is_replaced_and_commits_work_again(home: Home) -> None:
    lose("guard")(home)
    found = examine(home, NOW, repair=True)
    assert {outcome.finding.check: outcome.repaired for outcome in found} == {"file": True, "guard": True}
    write("UPDATE labels SET class = class")(home)
    assert examine(home, NOW) == []


@pytest.mark.parametrize("table", ["heads", "erasures", "recipes", "images"])
def test_a_lost_file_that_cannot_be_recreated_is_left_to_a_person(home: Home, table: str) -> None:
    write("INSERT INTO erasures VALUES ('e', 'images', 1, 1, '[]', now())")(home)
    lose(table)(home)
    found = examine(home, NOW, repair=True)
    assert (checks(found), {outcome.repaired for outcome in found}) == ({"file"}, {False})
    assert all(f"of {table}: is gone" in outcome.finding.what for outcome in found)


@pytest.mark.parametrize(
    "sql", ["UPDATE models SET training_id = 'nobody'", "UPDATE heads SET recipe_id = 'nobody' WHERE true"]
)
def test_a_model_or_head_with_a_dangling_reference_is_left_to_a_person(home: Home, sql: str) -> None:
    write(sql)(home)
    found = examine(home, NOW, repair=True)
    assert [outcome.repaired for outcome in found if outcome.finding.check.startswith("foreign")] == [False]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE ducklake_data_file SET record_count = record_count - 3 WHERE path LIKE '%recipe_id%'",
        """UPDATE ducklake_file_column_stats SET max_value = '00000000-0000-0000-0000-000000000001'
           WHERE data_file_id IN (SELECT data_file_id FROM ducklake_data_file WHERE path LIKE '%recipe_id%')
           AND length(max_value) = 36""",
    ],
)
def test_a_deep_check_finds_a_catalog_that_is_wrong_about_a_file(home: Home, sql: str) -> None:
    with closing(sqlite3.connect(home.catalog)) as con:
        assert con.execute(sql).rowcount == 1
        con.commit()
    found = examine(home, NOW, deep=True)
    assert checks(found) == {"file"}
    assert "the catalog says" in found[0].finding.what


@pytest.mark.parametrize("sql", ["settings = '{\"c\": '", "metrics = '{'", "metrics = '[]'", "settings = NULL"])
def test_a_head_whose_record_cannot_be_read_is_left_to_a_person(home: Home, sql: str) -> None:
    write(f"UPDATE heads SET {sql}")(home)
    lose_head(home)  # it cannot be trained again without settings
    found = examine(home, NOW, repair=True)
    assert ("json", False) in {(outcome.finding.check, outcome.repaired) for outcome in found}
    assert {outcome.finding.check for outcome in found if not outcome.repaired} == {"json"}


def test_a_canary_that_differs_from_its_images_feature_is_left_to_a_person(home: Home) -> None:
    add_canary("list_transform(vector, lambda x: x * 1.005)")(home)
    assert examine(home, NOW) == []
    write("UPDATE canaries SET vector = list_transform(vector, lambda x: x * 1.02)")(home)
    (found,) = examine(home, NOW, repair=True)
    assert (found.finding.check, found.repaired) == ("vector", False)
    assert "canaries of probe" in found.finding.what


def test_a_missing_package_of_a_registered_model_is_found(home: Home) -> None:
    (home.registry / "artifacts" / "models").rename(home.registry / "lost")
    (found,) = examine(home, NOW)
    with closing(sqlite3.connect(home.registry / "mlflow.db")) as con:
        con.execute("DROP TABLE model_versions")
    (broken,) = examine(home, NOW)
    assert (found.finding.check, found.finding.fix) == ("model", None)
    assert "model photos version 1: its package" in found.finding.what
    assert (broken.finding.check, "cannot be read" in broken.finding.what) == ("model", True)


def test_a_lost_catalog_is_not_taken_for_an_empty_lake(home: Home) -> None:
    for file in home.root.glob("catalog.sqlite*"):
        file.unlink()
    before = list_files(home)
    with pytest.raises(LakeError, match=r"has files of one.*Restore or name its catalog"):
        examine(home, NOW)
    with pytest.raises(LakeError, match="has files of one"):
        open_lake(home)
    assert list_files(home) == before


def test_a_damaged_catalog_is_found(home: Home) -> None:
    with closing(sqlite3.connect(home.catalog)) as con:
        con.execute("PRAGMA journal_mode = DELETE")
        con.execute("CREATE TABLE probe (a)")
        con.executemany("INSERT INTO probe VALUES (?)", [("x" * 500,) for _ in range(200)])
        con.execute("CREATE INDEX sought ON probe (a)")
        con.commit()
        page = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'probe'").fetchone()[0]
        size = con.execute("PRAGMA page_size").fetchone()[0]
    with home.catalog.open("r+b") as file:
        file.seek((page - 1) * size + 3)
        file.write(b"\xff\xff")
    (found,) = {outcome.finding.check for outcome in examine(home, NOW)}
    assert found == "catalog"


def test_checksums_show_their_progress(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    examine(home, NOW)
    assert "checksums 1/1 file," in capsys.readouterr().err


def test_an_altered_recipe_is_left_to_a_person(home: Home) -> None:
    write("UPDATE recipes SET recipe = replace(recipe, 'bilinear', 'bicubic')")(home)
    (found,) = examine(home, NOW, repair=True)
    assert (found.finding.check, found.repaired) == ("recipe", False)
    assert "backup" in found.finding.repair


def test_a_row_whose_image_and_snapshot_are_gone_is_left_to_a_person(home: Home) -> None:
    write(f"DELETE FROM files WHERE image_id = {ONE}")(home)
    write(f"DELETE FROM features WHERE image_id = {ONE}")(home)
    flip_bit(home)
    found = examine(home, NOW, repair=True)
    assert {outcome.finding.check: outcome.repaired for outcome in found} == {"file": True, "lost row": False}


def test_a_deep_check_finds_and_replaces_a_vector_that_differs_from_the_backbones(home: Home) -> None:
    write("UPDATE features SET vector = list_transform(vector, lambda x: x + 0.5)")(home)
    assert examine(home, NOW) == []
    found = examine(home, NOW, deep=True)
    assert (len(found), checks(found)) == (16, {"vector"})
    assert all(outcome.repaired for outcome in examine(home, NOW, deep=True, repair=True))
    assert examine(home, NOW, deep=True) == []


def test_a_deep_check_reads_every_page_of_an_unsealed_file(home: Home) -> None:
    write("DELETE FROM checksums")(home)
    file = find_file(home)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    file.write_bytes(data)
    found = examine(home, NOW, deep=True, repair=True)
    assert [(outcome.finding.check, outcome.repaired) for outcome in found] == [("file", True)]
    assert examine(home, NOW) == []


def test_recent_files_of_a_running_run_are_not_orphans(home: Home) -> None:
    find_file(home).with_name("fresh.unfinished").write_bytes(b"half")
    assert examine(home, NOW) == []
    found = examine(home, NOW + timedelta(days=2))
    assert checks(found) == {"orphan"}


def test_sealing_covers_live_files_and_forgets_missing_ones(home: Home) -> None:
    write("INSERT INTO checksums VALUES ('main/features/gone.parquet', 1, 'x', now())")(home)
    write("DELETE FROM checksums WHERE path LIKE '%images%'")(home)
    with open_lake(home) as lake:
        live = {file.path for file in list_live(lake)}
        before = lake.value("SELECT count(*) FROM checksums WHERE path LIKE '%/features/recipe%'")
        sealed = record_checksums(lake, NOW)
        assert {path for (path,) in lake.rows("SELECT path FROM checksums")} == live
        assert (before, sealed, record_checksums(lake, NOW)) == (1, len(live) - 1, 0)
    assert examine(home, NOW) == []


def test_broken_files_of_other_tables_are_left_to_a_person(home: Home) -> None:
    with open_lake(home) as lake:
        lake.rows("CALL ducklake_flush_inlined_data('lake')")
        path = next(file.path for file in list_live(lake) if file.table == "labels")
    (home.data / path).unlink()
    found = examine(home, NOW, repair=True)
    assert {outcome.repaired for outcome in found} == {False}
    assert any(f"{path} of labels: is gone" in outcome.finding.what for outcome in found)


def test_the_command_reports_in_text_in_json_and_by_its_exit_code(home: Home) -> None:
    sound = call(home, "--json")
    assert (sound.returncode, json.loads(sound.stdout)) == (0, {"sound": True, "findings": []})
    delete_file(home)
    broken = call(home)
    assert (broken.returncode, "is gone. Repair: its rows are dropped from the catalog" in broken.stdout) == (1, True)
    assert call(home, "--json").returncode == 1
    mended = call(home, "--repair", "--json")
    assert (mended.returncode, json.loads(mended.stdout)["findings"][0]["repaired"]) == (0, True)
    assert call(home, "--deep").stdout == "sound\n"


def call(home: Home, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run ``frostline doctor`` in its own process, with the counting backbone."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COUNTING_LOG": str(home.root / "calls")}
    command = [sys.executable, "-m", "tests.counting", "doctor", "--home", str(home.root), *flags]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_deleted_file_is_found_and_repaired_with_every_catalog_and_store(place: Home) -> None:
    with open_lake(place) as lake:
        recipe = decide_recipe(EmbedSettings(), Weights(Path("w"), "0" * 64))
        save_recipe(lake, {}, recipe, NOW)
        lake.commit(lambda: lake.execute(f"INSERT INTO images (image_id) VALUES ('{UNKNOWN_IMAGE}')"))
        file = write_features(place, recipe.recipe_id, [UNKNOWN_IMAGE], np.ones((1, 48), np.float32))
        commit_shard(lake, Shard(recipe.recipe_id, SourceName("photos"), file, (), 1, 1.0), NOW)
    assert examine(place, NOW) == []
    system, _ = open_data(place)
    system.delete_file(next(path for path in list_files(place) if "/features/" in path))
    assert [outcome.repaired for outcome in examine(place, NOW, repair=True)] == [True]
    assert examine(place, NOW) == []

"""Erasure: after it, no file, snapshot or free page of the lake holds the image, its path or its vector."""

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.care.doctor import list_lost_heads
from storage.care.erase import (
    SCRUBBED,
    ErasureRequest,
    count_open,
    erase,
    find_condition,
    find_images,
    find_source,
    finish,
    survey,
)
from storage.errors import EraseError, QueryError, TrainError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.locations.parquet_files import open_data
from storage.names import LabelSetName, ModelName, SourceName
from storage.tables.features import commit_shard, read_features
from storage.tables.leases import end_leases, name_holder
from storage.tables.models import Version, save_version
from storage.tables.trainings import Training, head_path, save_training
from storage.vectors.feature_file import Failure, Matrix, Shard, to_uuids, write_features
from tasks.heads.files import save_head
from tasks.heads.heads import Head, Neighbours
from tasks.heads.rejection import choose_known
from tests.first_run import copy_homes
from tests.lakes import Postgres, database_of, list_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
RECIPE, DIM, PER_SHARD = "c" * 32, 8, 20
RANDOM = np.random.default_rng(0)
IDS = [str(uuid.UUID(bytes=RANDOM.bytes(16))) for _ in range(3 * PER_SHARD)]
VECTORS: Matrix = RANDOM.normal(size=(len(IDS), DIM)).astype(np.float16).astype(np.float32)
OLDEST = min(IDS)  # whose id stands in the statistics
DOOMED = [OLDEST, IDS[25]]
STAY = [image_id for image_id in IDS if image_id not in DOOMED]


def name_path(image_id: str) -> str:
    return f"secret-{IDS.index(image_id):03}.jpg"


def fill(home: Home) -> None:
    """Make a lake of many small commits: rows in files and in the catalog, changed and deleted ones among them."""
    with open_lake(home) as lake:
        for start in range(0, len(IDS), PER_SHARD):
            part = slice(start, start + PER_SHARD)
            add_images(lake, IDS[part], "photos")
            file = write_features(home, RECIPE, IDS[part], VECTORS[part])
            failures = (Failure(IDS[start], name_path(IDS[start]), "decode", f"{name_path(IDS[start])} is broken"),)
            commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, failures, PER_SHARD, 1.0), NOW)
        add_images(lake, DOOMED[:1], "copies", known=True)
        lake.commit(lambda: use(lake))
        for path in (name_path(DOOMED[1]), name_path(IDS[3])):  # their rows were changed before
            touch(lake, path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose home was filled once."""
    folder = tmp_path_factory.mktemp("erased")
    fill(open_home(folder / "home"))
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Home:
    """A copy of that home."""
    copy_homes(template, tmp_path)
    return open_home(tmp_path / "home")


def touch(lake: Lake, path: str) -> None:
    lake.commit(lambda: lake.execute("UPDATE files SET mtime_ns = 2 WHERE path = ?", [path]))


def add_images(lake: Lake, image_ids: list[str], source: str, *, known: bool = False) -> None:
    rows = pa.table({"image_id": to_uuids(image_ids), "path": [name_path(image_id) for image_id in image_ids]})

    def write() -> None:
        if not known:
            lake.execute("INSERT INTO images SELECT image_id, 'JPEG', 8, 8, 'RGB', 9, ?, 1 FROM _added", [NOW])
        files = "INSERT INTO files (source, path, bytes, mtime_ns, image_id)"
        lake.execute(f"{files} SELECT ?, path, 9, 1, image_id FROM _added", [source])
        lake.execute("INSERT INTO labels SELECT $1, image_id, 'red', $1, $2 FROM _added", [source, NOW])
        lake.execute("INSERT INTO scans (source, root, scanned_at) VALUES (?, '/nowhere', ?)", [source, NOW])

    with lake.temporary_tables(_added=rows):
        lake.commit(write)


def use(lake: Lake) -> None:
    """Train on the images, predict them, probe with one, lease a range that one begins, tag what is there."""
    lake.execute("INSERT INTO heads (training_id, label_set, recipe_id, snapshot) VALUES ('t1', 'photos', 'r', 2)")
    lake.execute("INSERT INTO training_sets SELECT 't1', image_id, 'red', 'test' FROM images")
    lake.execute("INSERT INTO models VALUES ('photos', 1, 't1', 'run', 'champion', ?, '')", [NOW])
    lake.execute("INSERT INTO predictions SELECT 'photos', 1, image_id, 'red', 0.5, ?, '' FROM images", [NOW])
    lake.execute(
        "INSERT INTO canaries (recipe_id, probe, vector) VALUES (?, ?, ?)",
        [RECIPE, OLDEST, VECTORS[IDS.index(OLDEST)].tolist()],
    )
    lake.execute("INSERT INTO leases VALUES (?, ?, ?, 'gone@nowhere/1', ?, NULL)", [RECIPE, OLDEST, IDS[5], NOW])
    lake.execute("INSERT INTO tags VALUES ('release', 3, ?)", [NOW])


def read_columns(home: Home) -> Iterator[tuple[str, str]]:
    """Decode every column of every Parquet file below the data folder: (file, values as text)."""
    system, _ = open_data(home)
    for path in list_files(home):
        with system.open_input_file(path) as file:
            table = pq.read_table(file, partitioning=None)
        for name in table.column_names:
            yield path, repr([np.float32(v) if name == "vector" else v for v in table[name].to_pylist()])


def spell(image_id: str) -> list[bytes]:
    """Write an image's id, path and vector in each way in which they might stand in a file."""
    plain = uuid.UUID(image_id)
    high, low = plain.bytes[:8], plain.bytes[8:]
    hugeint = low[::-1] + bytes([high[7], *high[6:0:-1], high[0] ^ 0x80])  # as DuckDB keeps it: flipped, low half first
    vector = VECTORS[IDS.index(image_id)]
    texts = [image_id, plain.hex, name_path(image_id)]
    return [*map(str.encode, texts), plain.bytes, plain.bytes_le, plain.bytes[::-1], hugeint, vector.tobytes()]


def find_traces(home: Home, image_ids: list[str], dump: str = "") -> set[str]:
    """Find what is left of images: in decoded columns, in bytes of files, in the catalog."""
    system, _ = open_data(home)
    places = {path: system.open_input_file(path).read() for path in list_files(home)}
    places |= {str(path): path.read_bytes() for path in home.root.glob("catalog*")}
    places["dump"] = dump.encode()
    found = {
        f"{place} {word!r}" for i in image_ids for place, raw in places.items() for word in spell(i) if word in raw
    }
    for path, values in read_columns(home):
        for image_id in image_ids:
            words = (image_id, name_path(image_id), repr(list(VECTORS[IDS.index(image_id)]))[1:-1])
            found |= {f"{path} {word}" for word in words if word in values}
    return found


def dump(home: Home, request: pytest.FixtureRequest) -> str:
    if not home.catalog_url:
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return server.dump(database_of(home))


def check_rest(home: Home, stay: list[str] = STAY) -> None:
    with read_lake(home) as lake:
        places = [IDS.index(image_id) for image_id in stay]
        assert np.array_equal(read_features(lake, RECIPE, stay), VECTORS[places])
        for table in ("images", "features"):
            assert lake.rows(f"SELECT image_id::VARCHAR FROM {table} ORDER BY 1") == [(i,) for i in sorted(stay)]
        for image_id in stay:
            assert lake.value("SELECT count(*) FROM files WHERE image_id = ?", [image_id]) == 1


def test_nothing_is_left_of_erased_images_and_all_of_the_others(place: Home, request: pytest.FixtureRequest) -> None:
    fill(place)
    assert len(find_traces(place, DOOMED, dump(place, request))) > 20
    with read_lake(place) as lake:
        erasure = find_images(lake, [OLDEST[:13], DOOMED[1].replace("-", "").upper()])
    planned = survey(place, erasure)
    taken, left = erase(place, erasure, NOW)
    assert (taken, left) == (planned, 0)
    assert find_traces(place, DOOMED, dump(place, request)) == set()
    check_rest(place)


def test_a_run_that_was_embedding_an_erased_image_does_not_bring_it_back(home: Home) -> None:
    erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    file = write_features(home, "d" * 32, IDS, VECTORS)  # what the run had read before
    with open_lake(home) as lake:
        assert commit_shard(lake, Shard("d" * 32, SourceName("photos"), file, (), len(IDS), 1.0), NOW) == len(STAY)
        assert read_features(lake, "d" * 32, STAY).shape == (len(STAY), DIM)
        with pytest.raises(KeyError):
            read_features(lake, "d" * 32, DOOMED[:1])


def test_an_audit_row_says_how_much_and_never_what_and_names_the_models(home: Home) -> None:
    taken, _ = erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    assert [(model.name, model.version, model.images, model.example) for model in taken.models] == [
        ("photos", 1, 2, True)
    ]
    assert taken.models[0].retrain == f"frostline run /nowhere --name photos --home {home.root}"
    assert taken.tags == ("release",)
    with read_lake(home) as lake:
        rows = lake.rows("SELECT asked, images, rows, models, erased_at FROM erasures")
        assert rows == [("images", 2, sum(taken.rows.values()), '[{"name": "photos", "version": 1}]', NOW)]
        assert lake.value("SELECT count(*) FROM tags") == 0


def test_a_knn_head_with_an_erased_neighbour_is_deleted_and_is_no_finding(home: Home) -> None:
    kept = {"gone": IDS, "stays": STAY}
    with open_lake(home) as lake:
        for name, image_ids in kept.items():
            row = [name, "photos", RECIPE, 2, NOW - timedelta(days=1)]
            lake.execute("INSERT INTO heads VALUES (?, ?, ?, ?, '{}', '{}', ?, NULL, 'knn', '{}', [])", row)
            lake.execute("INSERT INTO training_sets SELECT ?, unnest(?)::UUID, 'red', 'train'", [name, image_ids])
    for name, image_ids in kept.items():
        vectors = VECTORS[[IDS.index(image_id) for image_id in image_ids]]
        labels, one = np.zeros(len(vectors), np.int64), np.ones(1, np.int64)
        save_head(Neighbours(("red",), np.zeros(DIM), np.ones(DIM), vectors, labels, one), head_path(home, name))
    erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    assert [head_path(home, name).is_file() for name in kept] == [False, True]
    with read_lake(home) as lake:
        assert "gone" not in [head.training_id for head in list_lost_heads(lake)]


def test_a_head_that_remembers_an_erased_image_to_answer_neither_is_deleted_and_is_no_finding(home: Home) -> None:
    trained_on = {"gone": IDS, "stays": STAY}
    with open_lake(home) as lake:
        for name, image_ids in trained_on.items():
            row = [name, "photos", RECIPE, 2, '{"refuse_nearest": 5}', NOW - timedelta(days=1)]
            lake.execute("INSERT INTO heads VALUES (?, ?, ?, ?, '{}', ?, ?, NULL, 'softmax', '{}', [])", row)
            lake.execute("INSERT INTO training_sets SELECT ?, unnest(?)::UUID, 'red', 'train'", [name, image_ids])
    for name, image_ids in trained_on.items():
        vectors = VECTORS[[IDS.index(image_id) for image_id in image_ids]]
        known = choose_known(vectors, np.array(["red"] * len(vectors)), most=6 * DIM)  # not all: any may be among them
        linear = Head(("red",), np.zeros(DIM), np.ones(DIM), np.zeros((DIM, 1)), np.zeros(1), known=known)
        save_head(linear, head_path(home, name))
    erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    assert [head_path(home, name).is_file() for name in trained_on] == [False, True]
    with read_lake(home) as lake:
        assert "gone" not in [head.training_id for head in list_lost_heads(lake)]


def test_a_missing_or_ambiguous_name_is_refused_and_nothing_is_erased(home: Home) -> None:
    with read_lake(home) as lake:
        for name, rule in (("f" * 32, "does not exist in this lake"), ("", "must be"), ("rose.jpg", "must be")):
            with pytest.raises(EraseError, match=rule):
                find_images(lake, [name])
        with pytest.raises(EraseError, match="begins several ids"):
            find_images(lake, ["0"])
        with pytest.raises(EraseError, match="does not exist in this lake"):
            find_source(lake, SourceName("flowers"))
        with pytest.raises(EraseError, match="met by no image"):
            find_condition(lake, "width > 9000")
        for condition in ("colour = 'red'", "true); DELETE FROM images; SELECT (true"):
            with pytest.raises(QueryError):
                find_condition(lake, condition)
        assert lake.value("SELECT count(*) FROM images") == len(IDS)


def test_erasing_a_source_erases_images_that_are_in_no_other(home: Home) -> None:
    with read_lake(home) as lake:
        source, condition = (
            find_source(lake, SourceName("photos")),
            find_condition(lake, f"path = '{name_path(IDS[7])}'"),
        )
    assert condition.image_ids == (IDS[7],)
    taken, _ = erase(home, source, NOW)
    assert taken.images == len(IDS) - 1
    assert find_traces(home, [image_id for image_id in IDS if image_id != OLDEST]) == set()
    check_rest(home, [OLDEST])
    with read_lake(home) as lake:
        assert lake.rows("SELECT DISTINCT source FROM files UNION ALL SELECT source FROM labels") == [
            ("copies",),
            ("copies",),
        ]


STEPS = ("rewrite_data_files", "expire_snapshots", "cleanup_old_files", "name => 'guard'")


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_that_is_killed_leaves_a_sound_lake_and_the_next_one_finishes_it(home: Home, step: str) -> None:
    code = (
        "import os, signal, sys; from tests.storage.care.test_erase import *\n"
        "call = Lake.call\n"
        "def die(lake, function):\n"
        "    if sys.argv[2] in function: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return call(lake, function)\n"
        "Lake.call = die\n"
        "erase(open_home(Path(sys.argv[1])), ErasureRequest('images', tuple(DOOMED)), NOW)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(home.root), step], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    check_rest(home)
    with read_lake(home) as lake:
        assert count_open(lake) == 1
    assert finish(home, NOW) == 0
    assert find_traces(home, DOOMED) == set()
    check_rest(home)
    with read_lake(home) as lake:
        assert count_open(lake) == 0


def test_leftovers_of_killed_runs_are_erased_too(home: Home) -> None:
    write_features(home, RECIPE, [OLDEST], VECTORS[[IDS.index(OLDEST)]])
    _, left = erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    assert (left, find_traces(home, DOOMED)) == (0, set())


def test_the_file_of_a_living_run_stays_until_the_run_ends(home: Home) -> None:
    now = datetime.now(UTC)
    holder = name_holder()
    with open_lake(home) as lake:
        row = [RECIPE, IDS[5], IDS[5], holder, now + timedelta(minutes=5)]
        lake.commit(lambda: lake.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, NULL)", row))
    file = Path(write_features(home, RECIPE, [OLDEST], VECTORS[[IDS.index(OLDEST)]]))
    _, left = erase(home, ErasureRequest("images", tuple(DOOMED)), now)
    assert (left, file.exists()) == (1, True)
    with open_lake(home) as lake:
        end_leases(lake, holder)
    assert (finish(home, now), file.exists()) == (0, False)
    assert find_traces(home, DOOMED) == set()


def test_an_erasure_stays_open_for_a_run_that_has_written_no_file_yet_and_no_file_of_it_stays(home: Home) -> None:
    now, holder = datetime.now(UTC), name_holder()
    with open_lake(home) as lake:
        row = ["d" * 32, OLDEST, IDS[5], holder, now + timedelta(minutes=5)]  # the range begins with an erased image
        lake.commit(lambda: lake.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, NULL)", row))
    assert erase(home, ErasureRequest("images", tuple(DOOMED)), now)[1] == 1
    file = write_features(home, "d" * 32, IDS, VECTORS)  # only now
    failure = Failure(DOOMED[1], name_path(DOOMED[1]), "decode", "is broken")
    with open_lake(home) as lake:
        commit_shard(lake, Shard("d" * 32, SourceName("photos"), file, (failure,), len(IDS), 1.0), now, holder)
    assert not Path(file).exists()
    assert finish(home, now) == 0
    assert find_traces(home, DOOMED) == set()


def test_every_table_with_images_is_erased_from(home: Home) -> None:
    with read_lake(home) as lake:
        tables = lake.column(
            """SELECT DISTINCT table_name FROM duckdb_columns() WHERE database_name = 'lake' AND data_type = 'UUID'
               AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake')"""
        )
    assert set(tables) <= set(SCRUBBED)


def write_on(root: Path, rounds: int) -> None:
    """Commit labels, changed files and features, as other processes do."""
    home = open_home(root)
    for number in range(rounds):
        with open_lake(home) as lake:
            lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('other', ?, 'x', 'other', ?)", [IDS[9], NOW]))
            touch(lake, name_path(IDS[10 + number]))


def test_nothing_that_others_commit_meanwhile_is_lost(home: Home) -> None:
    rounds = 12
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others:
        writer = others.submit(write_on, home.root, rounds)
        while not writer.running():
            time.sleep(0.01)
        erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
        writer.result(60)
    check_rest(home)
    with read_lake(home) as lake:
        assert lake.value("SELECT count(*) FROM labels WHERE source = 'other'") == rounds
        assert lake.value("SELECT count(*) FROM files WHERE mtime_ns = 2") == rounds + 1


def test_rewritten_vectors_stay_as_small_as_they_were(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    ids = [str(uuid.UUID(int=number)) for number in range(2000)]
    with open_lake(home) as lake:
        vectors = np.random.default_rng(1).normal(size=(len(ids), 256)).astype(np.float16).astype(np.float32)
        file = write_features(home, RECIPE, ids, vectors)
        commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), 2000, 1.0), NOW)
        lake.commit(lambda: lake.execute("INSERT INTO images (image_id) SELECT image_id FROM features"))
    before = Path(file).stat().st_size
    erase(home, ErasureRequest("images", (ids[7],)), NOW)
    [after] = [size for path, size in list_files(home).items() if "/features/" in path]
    assert after < 1.01 * before


def test_a_training_overtaken_by_an_erasure_is_refused_and_leaves_no_vector(home: Home) -> None:
    vectors = VECTORS[: len(IDS)]
    ends = (np.zeros(vectors.shape[1]), np.ones(vectors.shape[1]))
    head = Neighbours(("red",), *ends, vectors, np.zeros(len(IDS), np.int64), np.array([1]))
    save_head(head, head_path(home, "killed"))  # and its training came to no row
    erase(home, ErasureRequest("images", tuple(DOOMED)), NOW)
    assert not head_path(home, "killed").exists()
    save_head(head, head_path(home, "living"))
    rows = pa.table({"image_id": IDS, "class": ["red"] * len(IDS), "split": ["train"] * len(IDS)})
    with open_lake(home) as lake:
        with pytest.raises(TrainError, match=f"{len(DOOMED)} images: were erased while a head was trained"):
            save_training(lake, Training("living", LabelSetName("photos"), RECIPE, 1, {}, "softmax", {}), rows, NOW)
        assert not head_path(home, "living").parent.exists()
        said = pa.table({"image_id": IDS, "class": ["red"] * len(IDS), "probability": [1.0] * len(IDS)})
        save_version(lake, Version(ModelName("late"), 1, "living", "run", None, "registry"), said, NOW)
        assert lake.value("SELECT count(*) FROM predictions WHERE name = 'late'") == len(IDS) - len(DOOMED)

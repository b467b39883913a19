"""Erasure: after it, no file, snapshot or free page of the lake holds the image, its path or its vector."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.attach import open_lake, read_lake
from storage.data import open_data
from storage.erase import Request, count_open, erase, find_condition, find_images, find_source, finish, survey
from storage.errors import EraseError, QueryError
from storage.features import commit_shard, read_features
from storage.lake import Lake
from storage.paths import Home, open_home
from storage.vectors import Failure, Matrix, Shard, to_uuids, write_features
from tests.lakes import Postgres, database_of, list_files

NOW = datetime(2026, 1, 1, tzinfo=UTC)
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
            commit_shard(lake, Shard(RECIPE, "photos", file, failures, PER_SHARD, 1.0), NOW)
        add_images(lake, DOOMED[:1], "copies", known=True)
        lake.commit(lambda: use(lake))
        for path in (name_path(DOOMED[1]), name_path(IDS[3])):  # their rows were changed before
            touch(lake, path)


def touch(lake: Lake, path: str) -> None:
    lake.commit(lambda: lake.execute("UPDATE files SET mtime_ns = 2 WHERE path = ?", [path]))


def add_images(lake: Lake, image_ids: list[str], source: str, *, known: bool = False) -> None:
    rows = pa.table({"image_id": to_uuids(image_ids), "path": [name_path(image_id) for image_id in image_ids]})

    def write() -> None:
        if not known:
            lake.execute("INSERT INTO images SELECT image_id, 'JPEG', 8, 8, 'RGB', 9, ? FROM _added", [NOW])
        lake.execute("INSERT INTO files SELECT ?, path, 9, 1, NULL, image_id FROM _added", [source])
        lake.execute("INSERT INTO labels SELECT $1, image_id, 'red', $1, $2 FROM _added", [source, NOW])
        lake.execute("INSERT INTO scans (source, root, scanned_at) VALUES (?, '/nowhere', ?)", [source, NOW])

    with lake.lend(_added=rows):
        lake.commit(write)


def use(lake: Lake) -> None:
    """Train on the images, predict them, probe with one, lease a range that one begins, tag what is there."""
    lake.execute("INSERT INTO heads (training_id, label_set, recipe_id, snapshot) VALUES ('t1', 'photos', 'r', 2)")
    lake.execute("INSERT INTO training_sets SELECT 't1', image_id, 'red', 'test' FROM images")
    lake.execute("INSERT INTO models VALUES ('photos', 1, 't1', 'run', 'champion', ?)", [NOW])
    lake.execute("INSERT INTO predictions SELECT 'photos', 1, image_id, 'red', 0.5, ? FROM images", [NOW])
    lake.execute(
        "INSERT INTO canaries (recipe_id, probe, vector) VALUES (?, ?, ?)",
        [RECIPE, OLDEST, VECTORS[IDS.index(OLDEST)].tolist()],
    )
    lake.execute("INSERT INTO leases VALUES (?, ?, ?, 'gone@nowhere/1', ?)", [RECIPE, OLDEST, IDS[5], NOW])
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
        asked = find_images(lake, [OLDEST[:13], DOOMED[1].replace("-", "").upper()])
    planned = survey(place, asked)
    taken, left = erase(place, asked, NOW)
    assert (taken, left) == (planned, 0)
    assert find_traces(place, DOOMED, dump(place, request)) == set()
    check_rest(place)

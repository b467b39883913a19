"""The slices that images fall into."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.queries.image_facts import list_facts
from tests.rows import name


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with open_lake(Home(tmp_path)) as opened:
        yield opened


def add(lake: Lake, number: int, size: tuple[int, int], count: int, *sources: str) -> None:
    seen = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
    row = [name(number), *size, count, seen]
    lake.commit(lambda: lake.execute("INSERT INTO images VALUES (?::UUID, 'JPEG', ?, ?, 'RGB', ?, ?, 1)", row))
    for source in sources:
        row = [source, f"{number}.jpg", count, name(number)]
        insert = "INSERT INTO files (source, path, bytes, image_id) VALUES (?, ?, ?, ?::UUID)"
        lake.commit(lambda row=row, insert=insert: lake.execute(insert, row))  # type: ignore[misc]


def test_an_image_has_one_value_per_slice_and_one_per_source(lake: Lake) -> None:
    add(lake, 1, (640, 480), 99_999, "photos", "ward-7")
    add(lake, 2, (32, 64), 1_000)
    add(lake, 3, (255, 255), 12_345_678, "photos")
    add(lake, 4, (1, 1), 67, "photos")
    found = list_facts(lake, [name(2), name(1), name(3)])
    rows = {(row["image"], row["slice"], row["value"]) for row in found.to_pylist()}
    assert len(rows) == found.num_rows
    assert {(image, value) for image, kind, value in rows if kind == "source"} == {
        (1, "photos"), (1, "ward-7"), (2, "photos"),
    }  # fmt: skip
    assert {row for row in rows if row[1] != "source"} == {
        *((image, "format", "JPEG") for image in range(3)),
        *((image, "mode", "RGB") for image in range(3)),
        *((image, "first seen", "2026-01") for image in range(3)),
        (0, "shorter side", "32 to 63 px"),
        (1, "shorter side", "256 to 511 px"),
        (2, "shorter side", "128 to 255 px"),
        (0, "shape", "tall"),
        (1, "shape", "wide"),
        (2, "shape", "square"),
        (0, "file size", "1 to 9 kB"),
        (1, "file size", "10 to 99 kB"),
        (2, "file size", "10 to 99 MB"),
    }

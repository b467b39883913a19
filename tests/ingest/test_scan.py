"""Scanning: what changed is read, what the lake then says, and what a rename, a copy or a deletion means."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from storage.errors import SourceError
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.path_text import decode_path
from storage.names import SourceName
from storage.progress import silent
from storage.tables.scans import ScanCounts, commit_scan
from tasks.ingest.scan import predict_labels, scan
from tasks.ingest.settings import IngestSettings
from tests.pictures import write_image


class Place:
    """A home, whose lake is opened once for all that a test writes and reads."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)

    @cached_property
    def lake(self) -> Lake:
        return open_lake(self.home)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / "place")
    yield found
    if found.home.catalog.exists():
        found.lake.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two reds and two greens."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("red/1.png", "red/2.png", "green/3.png", "green/4.png")):
        write_image(folder / name, "red", seed)
    return folder


def look(place: Place, root: Path, source: str = "photos", *, retry: bool = False, **settings: int) -> ScanCounts:
    found = scan(place.home, SourceName(source), root, IngestSettings(**settings), silent, retry=retry)
    return commit_scan(place.lake, found, datetime.now(UTC))


def rows(place: Place, sql: str) -> list[tuple[Any, ...]]:
    return place.lake.rows(sql)


def classes(place: Place) -> dict[str, int]:
    return dict(rows(place, "SELECT class, count(*) FROM labels GROUP BY class ORDER BY class"))


def failures(place: Place) -> list[tuple[Any, ...]]:
    return rows(place, "SELECT path, stage, reason FROM failures ORDER BY path")


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if path == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def refuse_to_open_under(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    open_any = Path.open

    def refusing(path: Path, mode: str = "r") -> IO[Any]:
        assert not path.is_relative_to(folder), f"{path} was opened"
        return open_any(path, mode)

    monkeypatch.setattr(Path, "open", refusing)


def test_a_first_scan_reads_all_and_labels_by_folder(place: Place, root: Path) -> None:
    assert look(place, root) == ScanCounts(seen=4, new=4, gone=0, files=4, opened=4, ignored=0, failed=0)
    assert classes(place) == {"green": 2, "red": 2}
    assert rows(place, "SELECT DISTINCT format, width, height, mode FROM images") == [("PNG", 8, 8, "RGB")]


def test_a_scan_alone_writes_nothing(place: Place, root: Path) -> None:
    found = scan(place.home, SourceName("photos"), root, IngestSettings(), silent)
    assert found.reads.num_rows == 4
    assert not place.home.root.exists()


def test_an_unchanged_folder_opens_no_file_and_changes_no_row(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(place, root)
    before = rows(place, "SELECT path, bytes, mtime_ns, image_id FROM files ORDER BY path")
    labelled = rows(place, "SELECT image_id, class, labelled_at FROM labels ORDER BY image_id")
    refuse_to_open_under(monkeypatch, root)
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=0, ignored=0, failed=0)
    assert rows(place, "SELECT path, bytes, mtime_ns, image_id FROM files ORDER BY path") == before
    assert rows(place, "SELECT image_id, class, labelled_at FROM labels ORDER BY image_id") == labelled


def test_a_renamed_file_is_read_and_is_no_new_image(place: Place, root: Path) -> None:
    look(place, root)
    (root / "red" / "1.png").rename(root / "red" / "renamed.png")
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert ("red/renamed.png",) in rows(place, "SELECT path FROM files")
    assert ("red/1.png",) not in rows(place, "SELECT path FROM files")


def test_a_copy_is_the_same_image(place: Place, root: Path) -> None:
    look(place, root)
    shutil.copyfile(root / "red" / "1.png", root / "red" / "copy.png")
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=5, opened=1, ignored=0, failed=0)
    assert classes(place) == {"green": 2, "red": 2}


def test_a_touched_file_is_read_once_and_is_no_new_image(place: Place, root: Path) -> None:
    look(place, root)
    os.utime(root / "red" / "1.png", ns=(5, 5))
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert look(place, root).opened == 0


def test_other_bytes_in_a_file_are_one_new_image_and_one_gone(place: Place, root: Path) -> None:
    look(place, root)
    write_image(root / "red" / "1.png", "blue", 99)
    assert look(place, root) == ScanCounts(seen=4, new=1, gone=1, files=4, opened=1, ignored=0, failed=0)
    assert rows(place, "SELECT count(*) FROM images") == [(5,)]
    assert classes(place) == {"green": 2, "red": 2}


def test_a_deleted_file_s_label_goes_and_its_image_stays(place: Place, root: Path) -> None:
    look(place, root)
    (root / "red" / "1.png").unlink()
    assert look(place, root) == ScanCounts(seen=3, new=0, gone=1, files=3, opened=0, ignored=0, failed=0)
    assert rows(place, "SELECT count(*) FROM images") == [(4,)]
    assert classes(place) == {"green": 2, "red": 1}
    assert look(place, root).gone == 0


def test_a_file_that_comes_back_is_no_new_image(place: Place, root: Path, tmp_path: Path) -> None:
    look(place, root)
    (root / "red" / "1.png").rename(tmp_path / "aside.png")
    look(place, root)
    (tmp_path / "aside.png").rename(root / "red" / "1.png")
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert classes(place) == {"green": 2, "red": 2}


def test_a_renamed_class_folder_changes_labels_alone(place: Place, root: Path) -> None:
    look(place, root)
    images = rows(place, "SELECT image_id, first_seen FROM images ORDER BY image_id")
    (root / "red").rename(root / "crimson")
    assert look(place, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=2, ignored=0, failed=0)
    assert classes(place) == {"crimson": 2, "green": 2}
    assert rows(place, "SELECT image_id, first_seen FROM images ORDER BY image_id") == images


def test_the_same_bytes_under_two_classes_are_a_conflict_until_one_goes(place: Place, root: Path) -> None:
    shutil.copyfile(root / "red" / "1.png", root / "green" / "copy.png")
    assert look(place, root).seen == 4
    assert rows(place, "SELECT label_set, classes FROM conflicts") == [("photos", ["green", "red"])]
    (root / "green" / "copy.png").unlink()
    assert look(place, root).gone == 0
    assert rows(place, "SELECT * FROM conflicts") == []
    assert classes(place) == {"green": 2, "red": 2}


def test_an_image_in_two_sources_is_one_image_labelled_by_each(place: Place, root: Path, tmp_path: Path) -> None:
    look(place, root)
    shutil.copytree(root, tmp_path / "other")
    assert look(place, tmp_path / "other", "other") == ScanCounts(4, 0, 0, files=4, opened=4, ignored=0, failed=0)
    assert rows(place, "SELECT label_set, count(*) FROM labels GROUP BY ALL ORDER BY ALL") == [
        ("other", 4),
        ("photos", 4),
    ]
    assert rows(place, "SELECT count(*) FROM images") == [(4,)]


def test_the_labels_that_are_foreseen_are_those_that_are_committed(place: Place, root: Path) -> None:
    look(place, root)
    (root / "red" / "1.png").rename(root / "red" / "renamed.png")
    shutil.copyfile(root / "red" / "2.png", root / "green" / "copy.png")
    (root / "green" / "3.png").unlink()
    write_image(root / "green" / "4.png", "blue", 99)
    write_image(root / "unlabelled.png", "blue", 98)
    found = scan(place.home, SourceName("photos"), root, IngestSettings(), silent)
    foreseen = predict_labels(place.home, found)
    commit_scan(place.lake, found, datetime.now(UTC))
    assert sorted(foreseen) == rows(place, "SELECT image_id::VARCHAR AS id, class FROM labels ORDER BY id, class")
    assert classes(place) == {"green": 2, "red": 2}


def test_bad_files_cost_a_failure_each_and_nothing_else(place: Place, root: Path) -> None:
    (root / "red" / "empty.jpg").touch()
    (root / "red" / "text.jpg").write_text("no image")
    (root / "notes.txt").write_text("ignored")
    assert look(place, root) == ScanCounts(seen=4, new=4, gone=0, files=6, opened=6, ignored=1, failed=2)
    assert failures(place) == [("red/empty.jpg", "probe", "empty file"), ("red/text.jpg", "probe", "no image")]
    assert classes(place) == {"green": 2, "red": 2}


def test_a_bad_file_is_opened_again_on_request_or_when_it_changed(place: Place, root: Path) -> None:
    bad = root / "red" / "bad.png"
    bad.touch()
    look(place, root)
    assert look(place, root).opened == 0
    assert look(place, root, retry=True).opened == 1
    assert len(failures(place)) == 1
    write_image(bad, "blue", 77)
    assert look(place, root) == ScanCounts(seen=5, new=1, gone=0, files=5, opened=1, ignored=0, failed=0)
    assert failures(place) == []


def test_a_bad_file_that_goes_takes_its_failure_with_it(place: Place, root: Path) -> None:
    (root / "red" / "bad.png").touch()
    look(place, root)
    (root / "red" / "bad.png").unlink()
    assert look(place, root).failed == 0
    assert failures(place) == []


def test_an_image_that_turns_bad_is_gone_and_a_failure(place: Place, root: Path) -> None:
    look(place, root)
    (root / "red" / "1.png").write_bytes(b"")
    assert look(place, root) == ScanCounts(seen=3, new=0, gone=1, files=4, opened=1, ignored=0, failed=1)
    assert classes(place) == {"green": 2, "red": 1}


def test_an_oversized_image_is_a_failure_and_the_rest_is_taken(place: Place, root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "red" / "big.png")
    assert look(place, root, max_pixels=64).seen == 4
    assert [path for path, _, _ in failures(place)] == ["red/big.png"]


def test_names_of_any_bytes_go_through_the_lake_and_back(place: Place, root: Path) -> None:
    names = [b"\xff\xfe", b"back\\slash", b"two\nlines", b"a\\xff", b"quote'"]
    files = [root / os.fsdecode(name) / f"{os.fsdecode(name)}.png" for name in names]
    for seed, path in enumerate(files):
        write_image(path, "blue", 100 + seed)
    assert look(place, root).seen == 4 + len(names)
    found = {root / decode_path(path) for (path,) in rows(place, "SELECT path FROM files")}
    assert set(files) < found
    assert {os.fsencode(decode_path(name)) for name in classes(place)} == {*names, b"red", b"green"}
    assert look(place, root).opened == 0


def test_links_that_loop_add_no_image(place: Place, root: Path) -> None:
    (root / "red" / "up").symlink_to(root)
    (root / "red" / "self.png").symlink_to(root / "red" / "self.png")
    counts = look(place, root)
    assert (counts.seen, counts.files, counts.failed) == (4, 4, 1)
    assert [(path, stage) for path, stage, _ in failures(place)] == [("red/self.png", "read")]


def test_what_lies_in_an_unreadable_folder_does_not_count_as_gone(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(place, root)
    with monkeypatch.context() as patch:
        refuse_to_list(patch, root / "red")
        (root / "green" / "3.png").unlink()
        assert look(place, root) == ScanCounts(seen=3, new=0, gone=1, files=3, opened=0, ignored=0, failed=1)
    assert failures(place) == [("red", "read", "Permission denied")]
    assert classes(place) == {"green": 1, "red": 2}
    assert look(place, root) == ScanCounts(seen=3, new=0, gone=0, files=3, opened=0, ignored=0, failed=0)
    assert failures(place) == []


def test_a_folder_whose_name_begins_like_an_unreadable_one_s_is_not_kept_by_it(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(root / "reddish" / "5.png", "blue", 5)
    look(place, root)
    (root / "reddish" / "5.png").unlink()
    refuse_to_list(monkeypatch, root / "red")
    assert look(place, root).gone == 1


def test_a_folder_that_is_always_unreadable_is_one_failure(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_list(monkeypatch, root / "red")
    assert [look(place, root).failed for _ in range(2)] == [1, 1]
    assert failures(place) == [("red", "read", "Permission denied")]


def test_an_unreadable_file_is_tried_again_by_the_next_scan(
    place: Place, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refusing(path: Path, mode: str = "r", **options: Any) -> IO[Any]:  # noqa: ANN401 - as pathlib has it
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refusing)
        assert look(place, root) == ScanCounts(seen=3, new=3, gone=0, files=4, opened=4, ignored=0, failed=1)
    assert failures(place) == [("red/1.png", "read", "Permission denied")]
    assert look(place, root) == ScanCounts(seen=4, new=1, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert failures(place) == []


def test_a_missing_folder_is_refused_and_makes_no_lake(place: Place, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as refused:
        look(place, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(refused.value)
    assert not place.home.root.exists()


def test_a_folder_without_images_is_refused_with_what_it_has(place: Place, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"has no image in it \(1 other files\)") as refused:
        look(place, tmp_path / "photos")
    assert str(tmp_path / "photos") in str(refused.value)


def test_a_folder_that_was_emptied_is_refused_and_the_lake_stays(place: Place, root: Path) -> None:
    look(place, root)
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(SourceError, match="has no image in it"):
        look(place, root)
    assert classes(place) == {"green": 2, "red": 2}


def test_a_second_folder_under_a_name_is_refused_while_the_first_is_there(
    place: Place, root: Path, tmp_path: Path
) -> None:
    look(place, root)
    write_image(tmp_path / "other" / "red" / "9.png", "red", 9)
    with pytest.raises(SourceError, match="--name") as refused:
        look(place, tmp_path / "other")
    assert str(root) in str(refused.value)
    assert str(tmp_path / "other") in str(refused.value)
    assert rows(place, "SELECT count(*) FROM scans") == [(1,)]


def test_a_folder_that_moved_is_taken_under_its_name_and_nothing_is_read(
    place: Place, root: Path, tmp_path: Path
) -> None:
    look(place, root)
    root.rename(tmp_path / "moved")
    assert look(place, tmp_path / "moved") == ScanCounts(4, new=0, gone=0, files=4, opened=0, ignored=0, failed=0)
    assert rows(place, "SELECT arg_max(root, scanned_at) FROM scans") == [(str(tmp_path / "moved"),)]

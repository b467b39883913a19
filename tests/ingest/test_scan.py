"""Scanning: which files are read, what the lake then contains, and what renames, copies and deletions change."""

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
from tasks.ingest.scan import ScanOptions, list_refusals, predict_labels, scan
from tasks.ingest.settings import IngestSettings
from tests.pictures import write_folder, write_image


class Workspace:
    """A home whose lake is opened once for everything that a test writes and reads."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)

    @cached_property
    def lake(self) -> Lake:
        return open_lake(self.home)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "home")
    yield workspace
    if workspace.home.catalog.exists():
        workspace.lake.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two red and two green images."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("red/1.png", "red/2.png", "green/3.png", "green/4.png")):
        write_image(folder / name, "red", seed)
    return folder


def ingest(
    workspace: Workspace,
    root: Path,
    source: str = "photos",
    *,
    retry: bool = False,
    rehash: bool = False,
    **settings: Any,  # noqa: ANN401 - settings of any type
) -> ScanCounts:
    options = ScanOptions(retry=retry, rehash=rehash)
    found = scan(workspace.home, SourceName(source), root, IngestSettings(**settings), silent, options)
    return commit_scan(workspace.lake, found, datetime.now(UTC))


def rows(workspace: Workspace, sql: str) -> list[tuple[Any, ...]]:
    return workspace.lake.rows(sql)


def classes(workspace: Workspace) -> dict[str, int]:
    return dict(rows(workspace, "SELECT class, count(*) FROM labels GROUP BY class ORDER BY class"))


def failures(workspace: Workspace) -> list[tuple[Any, ...]]:
    return rows(workspace, "SELECT path, stage, reason FROM failures ORDER BY path")


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


def test_a_first_scan_reads_every_file_and_labels_by_folder(workspace: Workspace, root: Path) -> None:
    assert ingest(workspace, root) == ScanCounts(seen=4, new=4, gone=0, files=4, opened=4, ignored=0, failed=0)
    assert classes(workspace) == {"green": 2, "red": 2}
    assert rows(workspace, "SELECT DISTINCT format, width, height, mode FROM images") == [("PNG", 8, 8, "RGB")]


def test_a_scan_without_a_commit_writes_nothing(workspace: Workspace, root: Path) -> None:
    scanned = scan(workspace.home, SourceName("photos"), root, IngestSettings(), silent)
    assert scanned.reads.num_rows == 4
    assert not workspace.home.root.exists()


def test_an_unchanged_folder_opens_no_file_and_changes_no_row(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(workspace, root)
    before = rows(workspace, "SELECT path, bytes, mtime_ns, image_id FROM files ORDER BY path")
    labels_before = rows(workspace, "SELECT image_id, class, labelled_at FROM labels ORDER BY image_id")
    refuse_to_open_under(monkeypatch, root)
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=0, ignored=0, failed=0)
    assert rows(workspace, "SELECT path, bytes, mtime_ns, image_id FROM files ORDER BY path") == before
    assert rows(workspace, "SELECT image_id, class, labelled_at FROM labels ORDER BY image_id") == labels_before


def test_a_renamed_file_is_read_and_is_not_a_new_image(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    (root / "red" / "1.png").rename(root / "red" / "renamed.png")
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert ("red/renamed.png",) in rows(workspace, "SELECT path FROM files")
    assert ("red/1.png",) not in rows(workspace, "SELECT path FROM files")


def test_a_copy_is_the_same_image(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    shutil.copyfile(root / "red" / "1.png", root / "red" / "copy.png")
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=5, opened=1, ignored=0, failed=0)
    assert classes(workspace) == {"green": 2, "red": 2}


def test_a_touched_file_is_read_once_and_is_not_a_new_image(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    os.utime(root / "red" / "1.png", ns=(5, 5))
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert ingest(workspace, root).opened == 0


def test_a_file_with_new_bytes_is_one_new_image_and_one_gone(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    write_image(root / "red" / "1.png", "blue", 99)
    assert ingest(workspace, root) == ScanCounts(seen=4, new=1, gone=1, files=4, opened=1, ignored=0, failed=0)
    assert rows(workspace, "SELECT count(*) FROM images") == [(5,)]
    assert classes(workspace) == {"green": 2, "red": 2}


def test_a_deleted_file_loses_its_label_and_keeps_its_image(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    (root / "red" / "1.png").unlink()
    assert ingest(workspace, root) == ScanCounts(seen=3, new=0, gone=1, files=3, opened=0, ignored=0, failed=0)
    assert rows(workspace, "SELECT count(*) FROM images") == [(4,)]
    assert classes(workspace) == {"green": 2, "red": 1}
    assert ingest(workspace, root).gone == 0


def test_a_restored_file_is_not_a_new_image(workspace: Workspace, root: Path, tmp_path: Path) -> None:
    ingest(workspace, root)
    (root / "red" / "1.png").rename(tmp_path / "aside.png")
    ingest(workspace, root)
    (tmp_path / "aside.png").rename(root / "red" / "1.png")
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert classes(workspace) == {"green": 2, "red": 2}


def test_renaming_a_class_folder_changes_only_labels(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    images = rows(workspace, "SELECT image_id, first_seen FROM images ORDER BY image_id")
    (root / "red").rename(root / "crimson")
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=2, ignored=0, failed=0)
    assert classes(workspace) == {"crimson": 2, "green": 2}
    assert rows(workspace, "SELECT image_id, first_seen FROM images ORDER BY image_id") == images


def test_the_same_bytes_under_two_classes_are_a_conflict_until_one_is_deleted(workspace: Workspace, root: Path) -> None:
    shutil.copyfile(root / "red" / "1.png", root / "green" / "copy.png")
    assert ingest(workspace, root).seen == 4
    assert rows(workspace, "SELECT label_set, classes FROM conflicts") == [("photos", ["green", "red"])]
    (root / "green" / "copy.png").unlink()
    assert ingest(workspace, root).gone == 0
    assert rows(workspace, "SELECT * FROM conflicts") == []
    assert classes(workspace) == {"green": 2, "red": 2}


def test_an_image_in_two_sources_is_one_image_labelled_in_each(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    ingest(workspace, root)
    shutil.copytree(root, tmp_path / "other")
    assert ingest(workspace, tmp_path / "other", "other") == ScanCounts(4, 0, 0, files=4, opened=4, ignored=0, failed=0)
    assert rows(workspace, "SELECT label_set, count(*) FROM labels GROUP BY ALL ORDER BY ALL") == [
        ("other", 4),
        ("photos", 4),
    ]
    assert rows(workspace, "SELECT count(*) FROM images") == [(4,)]


def test_the_predicted_labels_are_those_committed(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    (root / "red" / "1.png").rename(root / "red" / "renamed.png")
    shutil.copyfile(root / "red" / "2.png", root / "green" / "copy.png")
    (root / "green" / "3.png").unlink()
    write_image(root / "green" / "4.png", "blue", 99)
    write_image(root / "unlabelled.png", "blue", 98)
    scanned = scan(workspace.home, SourceName("photos"), root, IngestSettings(), silent)
    predicted = predict_labels(workspace.home, scanned)
    commit_scan(workspace.lake, scanned, datetime.now(UTC))
    assert sorted(predicted) == rows(workspace, "SELECT image_id::VARCHAR AS id, class FROM labels ORDER BY id, class")
    assert classes(workspace) == {"green": 2, "red": 2}


def test_each_bad_file_is_one_failure_and_affects_no_other(workspace: Workspace, root: Path) -> None:
    (root / "red" / "empty.jpg").touch()
    (root / "red" / "text.jpg").write_text("not an image")
    (root / "notes.txt").write_text("ignored")
    assert ingest(workspace, root) == ScanCounts(seen=4, new=4, gone=0, files=6, opened=6, ignored=1, failed=2)
    assert failures(workspace) == [("red/empty.jpg", "probe", "empty file"), ("red/text.jpg", "probe", "not an image")]
    assert classes(workspace) == {"green": 2, "red": 2}


def test_a_bad_file_is_opened_again_on_request_or_if_it_changed(workspace: Workspace, root: Path) -> None:
    bad = root / "red" / "bad.png"
    bad.touch()
    ingest(workspace, root)
    assert ingest(workspace, root).opened == 0
    assert ingest(workspace, root, retry=True).opened == 1
    assert len(failures(workspace)) == 1
    write_image(bad, "blue", 77)
    assert ingest(workspace, root) == ScanCounts(seen=5, new=1, gone=0, files=5, opened=1, ignored=0, failed=0)
    assert failures(workspace) == []


def test_deleting_a_bad_file_removes_its_failure(workspace: Workspace, root: Path) -> None:
    (root / "red" / "bad.png").touch()
    ingest(workspace, root)
    (root / "red" / "bad.png").unlink()
    assert ingest(workspace, root).failed == 0
    assert failures(workspace) == []


def test_an_image_that_becomes_unreadable_is_gone_and_a_failure(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    (root / "red" / "1.png").write_bytes(b"")
    assert ingest(workspace, root) == ScanCounts(seen=3, new=0, gone=1, files=4, opened=1, ignored=0, failed=1)
    assert classes(workspace) == {"green": 2, "red": 1}


def test_an_oversized_image_is_a_failure_and_the_rest_is_ingested(workspace: Workspace, root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "red" / "big.png")
    assert ingest(workspace, root, max_pixels=64).seen == 4
    assert [path for path, _, _ in failures(workspace)] == ["red/big.png"]


def test_names_of_any_bytes_survive_a_round_trip_through_the_lake(workspace: Workspace, root: Path) -> None:
    names = [b"\xff\xfe", b"back\\slash", b"two\nlines", b"a\\xff", b"quote'"]
    files = [root / os.fsdecode(name) / f"{os.fsdecode(name)}.png" for name in names]
    for seed, path in enumerate(files):
        write_image(path, "blue", 100 + seed)
    assert ingest(workspace, root).seen == 4 + len(names)
    stored = {root / decode_path(path) for (path,) in rows(workspace, "SELECT path FROM files")}
    assert set(files) < stored
    assert {os.fsencode(decode_path(name)) for name in classes(workspace)} == {*names, b"red", b"green"}
    assert ingest(workspace, root).opened == 0


def test_looping_links_add_no_image(workspace: Workspace, root: Path) -> None:
    (root / "red" / "up").symlink_to(root)
    (root / "red" / "self.png").symlink_to(root / "red" / "self.png")
    counts = ingest(workspace, root)
    assert (counts.seen, counts.files, counts.failed) == (4, 4, 1)
    assert [(path, stage) for path, stage, _ in failures(workspace)] == [("red/self.png", "read")]


def test_the_files_in_an_unreadable_folder_do_not_count_as_gone(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(workspace, root)
    with monkeypatch.context() as patch:
        refuse_to_list(patch, root / "red")
        (root / "green" / "3.png").unlink()
        assert ingest(workspace, root) == ScanCounts(seen=3, new=0, gone=1, files=3, opened=0, ignored=0, failed=1)
    assert failures(workspace) == [("red", "read", "Permission denied")]
    assert classes(workspace) == {"green": 1, "red": 2}
    assert ingest(workspace, root) == ScanCounts(seen=3, new=0, gone=0, files=3, opened=0, ignored=0, failed=0)
    assert failures(workspace) == []


def test_a_folder_whose_name_starts_with_an_unreadable_folders_name_is_not_mistaken_for_it(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(root / "reddish" / "5.png", "blue", 5)
    ingest(workspace, root)
    (root / "reddish" / "5.png").unlink()
    refuse_to_list(monkeypatch, root / "red")
    assert ingest(workspace, root).gone == 1


def test_a_folder_that_is_always_unreadable_is_one_failure(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_list(monkeypatch, root / "red")
    assert [ingest(workspace, root).failed for _ in range(2)] == [1, 1]
    assert failures(workspace) == [("red", "read", "Permission denied")]


def test_an_unreadable_file_is_tried_again_by_the_next_scan(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_any = Path.open

    def refusing(path: Path, mode: str = "r", **options: Any) -> IO[Any]:  # noqa: ANN401 - as in pathlib
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return open_any(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refusing)
        assert ingest(workspace, root) == ScanCounts(seen=3, new=3, gone=0, files=4, opened=4, ignored=0, failed=1)
    assert failures(workspace) == [("red/1.png", "read", "Permission denied")]
    assert ingest(workspace, root) == ScanCounts(seen=4, new=1, gone=0, files=4, opened=1, ignored=0, failed=0)
    assert failures(workspace) == []


def test_a_missing_folder_is_refused_and_creates_no_lake(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as refused:
        ingest(workspace, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(refused.value)
    assert not workspace.home.root.exists()


def test_a_folder_without_images_is_refused_with_the_number_of_other_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"contains no images \(1 other file\)") as refused:
        ingest(workspace, tmp_path / "photos")
    assert str(tmp_path / "photos") in str(refused.value)


def test_an_emptied_folder_is_refused_and_the_lake_does_not_change(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(SourceError, match="contains no images"):
        ingest(workspace, root)
    assert classes(workspace) == {"green": 2, "red": 2}


def test_a_second_folder_under_one_name_is_refused_while_the_first_exists(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    ingest(workspace, root)
    write_image(tmp_path / "other" / "red" / "9.png", "red", 9)
    with pytest.raises(SourceError, match="--name") as refused:
        ingest(workspace, tmp_path / "other")
    assert str(root) in str(refused.value)
    assert str(tmp_path / "other") in str(refused.value)
    assert rows(workspace, "SELECT count(*) FROM scans") == [(1,)]


def test_a_moved_folder_is_recognized_by_its_name_and_nothing_is_read(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    ingest(workspace, root)
    root.rename(tmp_path / "moved")
    assert ingest(workspace, tmp_path / "moved") == ScanCounts(4, new=0, gone=0, files=4, opened=0, ignored=0, failed=0)
    assert rows(workspace, "SELECT arg_max(root, scanned_at) FROM scans") == [(str(tmp_path / "moved"),)]


def overwrite(path: Path, data: bytes) -> None:
    """Put other bytes of the same size into a file, and its time of modification back."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def bitmaps(tmp_path: Path) -> Path:
    """Two bitmaps in two classes, of the same size and time of modification."""
    for seed, name in enumerate(("a/1.bmp", "b/2.bmp")):
        os.utime(write_image(tmp_path / "photos" / name, "red", seed), ns=(5, 5))
    return tmp_path / "photos"


def test_other_bytes_of_the_same_size_and_time_are_noticed(workspace: Workspace, bitmaps: Path) -> None:
    ingest(workspace, bitmaps)
    data = (bitmaps / "a" / "1.bmp").read_bytes()
    overwrite(bitmaps / "a" / "1.bmp", data[:-3] + b"xyz")
    assert ingest(workspace, bitmaps) == ScanCounts(seen=2, new=1, gone=1, files=2, opened=1, ignored=0, failed=0)
    assert ingest(workspace, bitmaps).opened == 0


def test_equal_sized_files_that_change_places_change_their_labels(workspace: Workspace, bitmaps: Path) -> None:
    ingest(workspace, bitmaps)
    before = dict(rows(workspace, "SELECT image_id, class FROM labels"))
    (bitmaps / "a" / "1.bmp").rename(bitmaps / "aside")
    (bitmaps / "b" / "2.bmp").rename(bitmaps / "a" / "1.bmp")
    (bitmaps / "aside").rename(bitmaps / "b" / "2.bmp")
    assert ingest(workspace, bitmaps) == ScanCounts(seen=2, new=0, gone=0, files=2, opened=2, ignored=0, failed=0)
    after = dict(rows(workspace, "SELECT image_id, class FROM labels"))
    assert after == {image_id: {"a": "b", "b": "a"}[class_] for image_id, class_ in before.items()}


def test_rehash_reads_every_file_again_and_notices_what_nothing_tells(workspace: Workspace, bitmaps: Path) -> None:
    ingest(workspace, bitmaps)
    assert ingest(workspace, bitmaps, rehash=True) == ScanCounts(
        2, new=0, gone=0, files=2, opened=2, ignored=0, failed=0
    )
    file = bitmaps / "a" / "1.bmp"
    overwrite(file, file.read_bytes()[:-3] + b"xyz")
    update = "UPDATE files SET ctime_ns = ? WHERE path = 'a/1.bmp'"  # as if the file system had no times of change
    workspace.lake.commit(lambda: workspace.lake.execute(update, [file.stat().st_ctime_ns]))
    assert ingest(workspace, bitmaps).opened == 0
    assert ingest(workspace, bitmaps, rehash=True).new == 1


def test_files_recorded_without_times_of_change_are_completed_without_reading(workspace: Workspace, root: Path) -> None:
    ingest(workspace, root)
    workspace.lake.commit(lambda: workspace.lake.execute("UPDATE files SET ctime_ns = NULL, inode = NULL"))
    assert ingest(workspace, root) == ScanCounts(seen=4, new=0, gone=0, files=4, opened=0, ignored=0, failed=0)
    assert rows(workspace, "SELECT count(*) FROM files WHERE ctime_ns IS NULL OR inode IS NULL") == [(0,)]


def test_a_file_from_the_year_2300_costs_no_other_file(workspace: Workspace, root: Path) -> None:
    os.utime(root / "red" / "1.png", (0, 10_413_792_000))
    assert ingest(workspace, root) == ScanCounts(seen=4, new=4, gone=0, files=4, opened=4, ignored=0, failed=0)
    assert ingest(workspace, root).opened == 0


def refuse(workspace: Workspace, root: Path, **settings: Any) -> str | None:  # noqa: ANN401 - settings of any type
    """Return why a run would refuse a folder, if it would."""
    chosen = IngestSettings(**settings)
    found = scan(workspace.home, SourceName("photos"), root, chosen, silent)
    refusals = list_refusals(workspace.home, found, chosen, accept_gone=False)
    assert list_refusals(workspace.home, found, chosen, accept_gone=True) == refusals[:0]
    return str(refusals[0]) if refusals else None


def test_images_that_are_gone_are_refused_beyond_a_share_of_the_source(workspace: Workspace, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", per_class=10)
    ingest(workspace, root)
    for color in ("red", "green", "blue"):
        for number in (1, 2):
            (root / color / f"00{number}.png").unlink()
    assert refuse(workspace, root) is None
    (root / "red" / "003.png").unlink()
    assert refuse(workspace, root, max_gone=0.3) is None
    refusal = refuse(workspace, root)
    assert refusal
    for words in ("7 of 30 images gone (red 3 of 10, blue 2 of 10, green 2 of 10), such as blue/001", "--accept-gone"):
        assert words in refusal


def test_images_that_are_gone_are_refused_beyond_a_share_of_a_class(workspace: Workspace, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", per_class=30, colors=("red", "green"))
    for seed in range(6):
        write_image(root / "small" / f"{seed}.png", "blue", seed)
    ingest(workspace, root)
    shutil.rmtree(root / "small")
    refusal = refuse(workspace, root)
    assert refusal
    assert "(small 6 of 6)" in refusal


def test_a_renamed_class_and_a_class_of_a_few_images_may_go(workspace: Workspace, root: Path) -> None:
    write_folder(root, per_class=30, colors=("blue",))
    ingest(workspace, root)
    shutil.rmtree(root / "red")
    (root / "blue").rename(root / "azure")
    assert refuse(workspace, root) is None


def test_a_given_split_is_recorded_with_the_file_and_follows_the_layout(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for seed, folder in enumerate(("train/cat", "train/dog", "val/cat", "test/dog")):
        write_image(root / folder / "1.png", "red", seed)
    ingest(workspace, root)
    assert classes(workspace) == {"cat": 2, "dog": 2}
    assert rows(workspace, "SELECT path, given_split FROM files ORDER BY path") == [
        ("test/dog/1.png", "test"),
        ("train/cat/1.png", "train"),
        ("train/dog/1.png", "train"),
        ("val/cat/1.png", "validation"),
    ]
    assert ingest(workspace, root).opened == 0
    assert ingest(workspace, root, layout="class").opened == 0
    assert classes(workspace) == {"test": 1, "train": 2, "val": 1}
    assert set(rows(workspace, "SELECT given_split FROM files")) == {(None,)}


def test_folders_that_may_mean_something_else_are_refused_before_a_file_is_read(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(workspace, root)
    write_image(root / "test" / "5.png", "red", 5)
    name, strict = SourceName("photos"), ScanOptions(strict=True)
    with monkeypatch.context() as patch:
        refuse_to_open_under(patch, root)
        with pytest.raises(SourceError, match=r"the folder test may be a class or a split.*--ingest\.layout class"):
            scan(workspace.home, name, root, IngestSettings(), silent, strict)
    assert scan(workspace.home, name, root, IngestSettings(layout="class"), silent, strict).reads.num_rows == 1

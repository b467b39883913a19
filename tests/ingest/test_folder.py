"""Listing a folder: whatever it contains, nothing crashes and every image file is listed once."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.settings import RunSettings
from storage.errors import SourceError
from storage.locations.path_text import decode_path, encode_path
from storage.names import SourceName
from storage.tables.scans import Listing
from tasks.ingest.sources.folder import check_folder, list_folder
from tests.pictures import write_image


def touch(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def paths(listing: Listing) -> list[str]:
    return sorted(listing.files["path"].to_pylist())


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make some folders unreadable, even for root."""
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if path in map(str, folders):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_a_file_is_listed_with_its_size_its_time_and_its_class(tmp_path: Path) -> None:
    path = touch(tmp_path / "cats" / "deep" / "1.jpg", b"12345")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    status = path.stat()
    assert list_folder(SourceName("photos"), tmp_path).files.to_pylist() == [
        {
            "path": "cats/deep/1.jpg",
            "bytes": 5,
            "mtime_ns": 1_234_567_890_123_456_789,
            "ctime_ns": status.st_ctime_ns,
            "inode": status.st_ino,
            "class": "cats",
            "given_split": None,
        }
    ]


def test_a_time_beyond_64_bits_becomes_the_last_that_fits_and_costs_no_other_file(tmp_path: Path) -> None:
    for name, time in (("late", 12_000_000_000), ("normal", 1)):
        os.utime(touch(tmp_path / "cats" / f"{name}.jpg"), (0, time))
    files = list_folder(SourceName("photos"), tmp_path).files.to_pylist()
    assert {file["path"]: file["mtime_ns"] for file in files} == {
        "cats/late.jpg": 2**63 - 1,
        "cats/normal.jpg": 10**9,
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s3://bucket/photos", "source s3://bucket/photos: is a URL, and only folders are sources yet"),
        ("https://example.org/photos.zip", "is a URL"),
        ("photos.zip", "is an archive, and only folders are sources yet. Unpack it"),
        ("photos.tar.gz", "is an archive"),
        ("labels.csv", "is a file of labels"),
        ("annotations.JSON", "is a file of labels"),
        ("1.jpg", "is a single image"),
    ],
)
def test_what_is_no_source_yet_is_named_as_what_it_is(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("photos.zip", "labels.csv", "1.jpg"):
        touch(tmp_path / path)
    with pytest.raises(SourceError, match=words):
        check_folder(RunSettings(source=Path(name)).source_path)


def test_a_folder_with_the_suffix_of_an_archive_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "photos.zip" / "a" / "1.jpg")
    assert paths(list_folder(SourceName("photos"), tmp_path / "photos.zip")) == ["a/1.jpg"]


def test_a_file_outside_the_class_folders_has_no_class(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg")
    assert list_folder(SourceName("photos"), tmp_path).files["class"].to_pylist() == [None]


def test_suffixes_are_case_insensitive(tmp_path: Path) -> None:
    names = ["a.JPG", "b.Jpeg", "c.png", "d.webp", "e.GIF", "f.bmp", "g.tif", "h.tiff"]
    for name in names:
        touch(tmp_path / "a" / name)
    assert paths(list_folder(SourceName("photos"), tmp_path)) == [f"a/{name}" for name in names]


def test_other_files_and_hidden_files_are_counted_as_ignored(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/notes.txt", "a/Thumbs.db", "a/noext", "a/.hidden.jpg", ".DS_Store", ".cache/2.jpg"):
        touch(tmp_path / name)
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg"]
    assert listing.ignored == 6


def test_links_to_an_enclosing_folder_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "1.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "top").symlink_to(tmp_path, target_is_directory=True)
    assert paths(list_folder(SourceName("photos"), tmp_path)) == ["a/b/1.jpg"]


def test_two_folders_that_link_to_each_other_do_not_loop(tmp_path: Path) -> None:
    for folder, other in (("a", "b"), ("b", "a")):
        touch(tmp_path / folder / f"{folder}.jpg")
        (tmp_path / folder / "other").symlink_to(tmp_path / other)
    assert paths(list_folder(SourceName("photos"), tmp_path)) == [
        "a/a.jpg",
        "a/other/b.jpg",
        "b/b.jpg",
        "b/other/a.jpg",
    ]


def test_folders_that_all_link_to_each_other_are_listed_once_per_class(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(6)]
    for name in names:
        touch(tmp_path / name / "1.jpg")
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    listing = list_folder(SourceName("photos"), tmp_path)
    assert {f"{name}/1.jpg" for name in names} <= set(paths(listing))
    assert listing.files.num_rows <= 6 * 6  # following every path would list 1,956, and a million with nine folders


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cats").symlink_to(tmp_path / "elsewhere")
    assert paths(list_folder(SourceName("photos"), tmp_path / "root")) == ["cats/1.jpg"]


def test_a_link_to_a_file_has_the_targets_size(tmp_path: Path) -> None:
    target = touch(tmp_path / "elsewhere" / "data", b"123")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "1.jpg").symlink_to(target)
    assert list_folder(SourceName("photos"), tmp_path / "root").files["bytes"].to_pylist() == [3]


def test_a_dangling_link_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "nothing")
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg"]
    assert (listing.ignored, listing.unreadable) == (1, ())


def test_a_link_to_itself_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "a" / "2.jpg")
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg"]
    assert [path for path, _ in listing.unreadable] == ["a/2.jpg"]


def test_a_named_pipe_with_an_images_suffix_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg"]
    assert listing.ignored == 1


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"back\\slash.png", b"two\nlines.png", b"a\\xff.png", b"\xc3\xa9.png"]
)
def test_a_name_of_any_bytes_is_listed_and_can_be_decoded_to_its_file(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name + b"-class")
    folder.mkdir()
    (folder / os.fsdecode(name)).write_bytes(b"123")
    (row,) = list_folder(SourceName("photos"), tmp_path).files.to_pylist()
    assert row["path"].encode()
    assert row["class"] == encode_path(os.fsdecode(name + b"-class"))
    assert (tmp_path / decode_path(row["path"])).read_bytes() == b"123"


def test_a_root_with_any_bytes_in_its_name_is_encoded_as_text(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff\\root")
    touch(root / "a" / "1.jpg")
    listing = list_folder(SourceName("photos"), root)
    assert listing.root.endswith(r"/\xff\\root")
    assert decode_path(listing.root) == str(root)


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Callable[[str, int], int]]:
    """Nest folders deeper than paths can name, and remove them afterwards, since pytest's own cleanup recurses."""

    def make(name: str, depth: int) -> int:
        parent = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=parent)
            child = os.open(name, os.O_RDONLY, dir_fd=parent)
            os.close(parent)
            parent = child
        return parent

    yield make
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_deeply_nested_folders_are_listed(tmp_path: Path, nest: Callable[[str, int], int]) -> None:
    deepest = nest("d", 1200)
    os.close(os.open("1.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
    os.close(deepest)
    assert paths(list_folder(SourceName("photos"), tmp_path)) == ["d/" * 1200 + "1.jpg"]


def test_a_path_that_is_too_long_is_reported(tmp_path: Path, nest: Callable[[str, int], int]) -> None:
    touch(tmp_path / "a" / "1.jpg")
    os.close(nest("d" * 200, 30))
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg"]
    assert len(listing.unreadable) == 1


def test_an_unreadable_folder_is_reported_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a" / "1.jpg")
    touch(tmp_path / "b" / "deep" / "2.jpg")
    touch(tmp_path / "b" / "3.jpg")
    refuse_to_list(monkeypatch, tmp_path / "b" / "deep")
    listing = list_folder(SourceName("photos"), tmp_path)
    assert paths(listing) == ["a/1.jpg", "b/3.jpg"]
    assert listing.unreadable == (("b/deep", "Permission denied"),)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    touch(tmp_path / "b" / "2.jpg").parent.chmod(0)
    try:
        listing = list_folder(SourceName("photos"), tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert paths(listing) == ["a/1.jpg"]
    assert [path for path, _ in listing.unreadable] == ["b"]


def test_an_error_names_the_unreadable_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_list(monkeypatch, tmp_path)
    with pytest.raises(SourceError, match="Permission denied") as refused:
        list_folder(SourceName("photos"), tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_an_error_names_the_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as refused:
        list_folder(SourceName("photos"), tmp_path / "gone")
    assert str(tmp_path / "gone") in str(refused.value)


def test_an_error_names_a_root_that_is_a_file(tmp_path: Path) -> None:
    path = write_image(tmp_path / "1.png", "red", 0)
    with pytest.raises(SourceError, match="is a single image, and only folders") as refused:
        list_folder(SourceName("photos"), path)
    assert str(path) in str(refused.value)

"""Atomic writes: complete or absent, whatever breaks off."""

from pathlib import Path

import pytest

from storage.locations.atomic import write_file, write_folder
from storage.locations.locks import try_lock


def test_a_file_replaces_the_old_one_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "head.bin"
    with write_file(path) as unfinished:
        unfinished.write_bytes(b"one")
        assert not path.exists()
    with write_file(path) as unfinished:
        unfinished.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "backbone"
    with write_folder(folder) as unfinished:
        (unfinished / "a").write_bytes(b"a")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    with pytest.raises(FileExistsError), write_folder(folder) as unfinished:
        (unfinished / "b").write_bytes(b"b")
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(tmp_path.joinpath("new").iterdir()) == [folder]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), write_file(tmp_path / "a"):
        raise ValueError("broken")
    with pytest.raises(ValueError, match="broken"), write_folder(tmp_path / "b"):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    left, busy, other = (tmp_path / name for name in (".a.01234567.unfinished", ".a.89abcdef.unfinished", ".b"))
    for path in (left, busy, other):
        path.write_bytes(b"half")
    with try_lock(busy), write_file(tmp_path / "a") as unfinished:
        unfinished.write_bytes(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.89abcdef.unfinished", ".b"}

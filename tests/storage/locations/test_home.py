"""Paths as text: any name that a file system allows round-trips."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.lake.attach import open_lake
from storage.locations.home import open_home
from storage.locations.path_text import decode_path, encode_path
from tests.rows import add_features, label

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"/" not in name)
# Names that look like escapes are rare among arbitrary bytes.
ESCAPES = st.lists(st.sampled_from([b"\\", b"\\\\", b"x", b"ff", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\n"])).map(
    b"".join
)


@given(NAMES | ESCAPES)
def test_any_bytes_round_trip(name: bytes) -> None:
    path = os.fsdecode(name)
    assert decode_path(encode_path(path)) == path


@given(NAMES | ESCAPES)
def test_the_text_is_valid_utf_8(name: bytes) -> None:
    encode_path(os.fsdecode(name)).encode("utf-8")


@given(NAMES | ESCAPES, NAMES | ESCAPES)
def test_two_paths_never_share_a_text(one: bytes, other: bytes) -> None:
    texts = {encode_path(os.fsdecode(name)) for name in (one, other)}
    assert len(texts) == len({one, other})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain.jpg", "plain.jpg"),
        (b"\xff\xfe.png", r"\xff\xfe.png"),
        ("é.png".encode(), "é.png"),
        (b"a\\xff.png", r"a\\xff.png"),
        (b"two\nlines.png", "two\nlines.png"),
    ],
)
def test_the_text_is_readable(name: bytes, text: str) -> None:
    assert encode_path(os.fsdecode(name)) == text


@pytest.mark.parametrize(("mode", "folder", "file"), [(None, 0o700, 0o600), (0o750, 0o750, 0o640)])
def test_a_new_home_is_its_owners_alone_and_an_existing_one_keeps_its_permissions(
    tmp_path: Path, mode: int | None, folder: int, file: int
) -> None:
    home, before = open_home(tmp_path / "home"), os.umask(0o022)
    try:
        if mode is not None:
            home.root.mkdir()
            home.root.chmod(mode)
        with open_lake(home) as lake:
            label(lake, range(3), "red")
            add_features(lake, range(3))
    finally:
        os.umask(before)
    for path in (home.root, *home.root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (folder if path.is_dir() else file), path

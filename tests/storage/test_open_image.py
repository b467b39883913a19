"""Opening an image: its bytes, checked against its identity, or one error that says why not."""

import pickle
import uuid
from pathlib import Path

import pytest

from storage.errors import ImageError
from storage.names import SourceName
from storage.sources.open_image import Locator, Source, folder_source, hash_image, open_image


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "1.png").write_bytes(b"one")
    return folder_source(SourceName("photos"), tmp_path)


def test_the_bytes_of_an_image_are_returned(source: Source) -> None:
    assert open_image(source, Locator("1.png")) == b"one"
    assert open_image(source, Locator("1.png"), str(hash_image(b"one"))) == b"one"


def test_other_bytes_than_the_image_s_are_refused(source: Source) -> None:
    with pytest.raises(ImageError, match=r"1\.png: bytes changed after the scan\. Put it back, or scan"):
        open_image(source, Locator("1.png"), str(uuid.uuid4()))


@pytest.mark.parametrize(("path", "reason"), [("gone.png", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused_with_the_system_s_reason(source: Source, path: str, reason: str) -> None:
    with pytest.raises(ImageError) as refused:
        open_image(source, Locator(path))
    assert refused.value.rule == reason


def test_a_name_that_is_no_utf_8_is_reached_by_its_text(tmp_path: Path) -> None:
    Path(tmp_path, "\udcff\\.png").write_bytes(b"two")
    assert open_image(folder_source(SourceName("photos"), tmp_path), Locator(r"\xff\\.png")) == b"two"


def test_the_error_survives_pickling(source: Source) -> None:
    with pytest.raises(ImageError) as refused:
        open_image(source, Locator("gone.png"))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # noqa: S301 - our own

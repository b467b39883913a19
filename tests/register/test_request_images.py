"""Images in requests: what is understood, and what the others are told."""

import base64

import pytest

from tasks.register.registry.request_images import RequestError, read_request_image

IMAGE = bytes(range(256)) * 3 + b"\xfb\xff"  # its base64 has both characters that URLs replace
TEXT = base64.b64encode(IMAGE).decode()
URL_SAFE = base64.urlsafe_b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    "value",
    [
        IMAGE,
        bytearray(IMAGE),
        TEXT,
        TEXT.encode(),
        TEXT.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        base64.encodebytes(IMAGE).decode(),
        f"  {TEXT}\n",
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}".encode(),
        f"DATA:image/png;charset=utf-8;BASE64,{URL_SAFE}",
        f"data:image/png;base64,{TEXT.replace('+', '%2B').replace('=', '%3D')}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in IMAGE),
    ],
)
def test_every_usual_spelling_gives_the_image(value: object) -> None:
    assert read_request_image(value) == IMAGE


def test_a_plain_text_image_given_as_bytes_is_not_taken_for_base64() -> None:
    assert read_request_image(b"P2 1 1 255\n7\n") == b"P2 1 1 255\n7\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null"),
        (float("nan"), "null"),
        ("None", "null"),
        ("", "empty"),
        (" ", "empty"),
        (b"", "empty"),
        ("data:image/png;base64,", "empty"),
        ("photo.jpg", "not base64"),
        ("abcde", "not base64"),
        (7, "of type int"),
    ],
)
def test_what_is_no_image_is_told_what_is_wrong_and_what_to_send(value: object, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        read_request_image(value)
    assert "send the file's bytes as base64 text or as a data URI" in str(refused.value)

"""The page about licences: its table says what the installed packages say."""

from email.message import Message
from importlib.metadata import metadata
from pathlib import Path

import pytest

from benchmarks.licences import PAGE, TABLE, list_dependencies, read_licence, write_table

ROOT = Path(__file__).parents[1]


def test_the_table_is_what_the_direct_dependencies_state() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in list_dependencies():
        assert f"\n| {name} | {read_licence(metadata(name))} |\n" in page
    found = TABLE.search(page)
    assert found
    assert found[0].splitlines() == write_table().splitlines()


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "MIT", "License": "other"}, "MIT"),
        ({"License": "BSD"}, "BSD"),
        ({"License": "Apache License\n" * 9, "Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "Apache License\n" * 9}, 'its own text: "Apache License"'),
        ({"License": "UNKNOWN"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_a_licence_is_read_from_the_field_that_says_most(fields: dict[str, str], licence: str) -> None:
    package = Message()
    for field, value in fields.items():
        package[field] = value
    assert read_licence(package) == licence  # type: ignore[arg-type]


def test_the_license_file_is_whole_and_is_the_one_that_pyproject_names() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in text
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license = "Apache-2.0"\nlicense-files = ["LICENSE"]\n' in project

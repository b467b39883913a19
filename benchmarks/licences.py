"""The licences of what Frostline depends on, as the packages state them.

``python -m benchmarks.licences`` writes the table of ``docs/licences.md``.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
TABLE = re.compile(r"(?<=<!-- python -m benchmarks.licences writes this table -->\n).*?(?=\n\n)", re.DOTALL)
APPROVED = "License :: OSI Approved :: "
NAME = re.compile(r"[\w.-]+")
LONGEST = 40
"""Characters that a licence's name has at most; some packages put the whole text there, and the name begins it."""


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(TABLE.sub(lambda _: write_table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(write_table())


def write_table() -> str:
    """Write a Markdown table with a row for each direct dependency."""
    rows = [f"| {name} | {read_licence(metadata(name))} |" for name in list_dependencies()]
    return "\n".join(["| package | licence |", "|---|---|", *rows])


def list_dependencies() -> list[str]:
    """Name the packages that pyproject.toml requires without an extra, in alphabetical order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(match[0] for line in project["dependencies"] if (match := NAME.match(line)))


def read_licence(package: PackageMetadata) -> str:
    """Read the licence: the SPDX expression, else a short text, else the classifier, else the text's first line."""
    return next(iter(_list_statements(package)), "not stated")


def _list_statements(package: PackageMetadata) -> Iterator[str]:
    yield from package.get_all("License-Expression") or ()
    classifiers = package.get_all("Classifier") or ()
    text = next(iter(package.get_all("License") or ("",))).strip()
    if text not in ("", "UNKNOWN") and len(text) <= LONGEST:
        yield text
    yield from (line.removeprefix(APPROVED) for line in classifiers if line.startswith(APPROVED))
    if len(text) > LONGEST:
        yield f'its own text: "{text.splitlines()[0].strip()}"'


if __name__ == "__main__":
    main()

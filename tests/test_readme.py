"""The README's commands, run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pictures import write_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

PLAIN_DUCKDB = """
import importlib.util, pathlib, shutil, sys, duckdb
con = duckdb.connect()
for wheel, name in (("ducklake", "ducklake"), ("sqlite", "sqlite_scanner")):
    root = pathlib.Path(importlib.util.find_spec(f"duckdb_extension_{wheel}").submodule_search_locations[0])
    file = root / "extensions" / f"v{duckdb.__version__}" / f"{wheel}.duckdb_extension"
    con.execute(f"LOAD '{shutil.copy(file, pathlib.Path.cwd() / f'{name}.duckdb_extension')}'")
print(con.execute(sys.argv[1]).fetchall())
"""


def block_after(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.usefixtures("tally")
def test_the_commands_run_one_after_the_other_and_plain_duckdb_reads_the_lake(
    frostline_in: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "photos")
    commands = [shlex.split(line, comments=True) for line in block_after("tests run these").splitlines()]
    assert len(commands) == 6
    for name, *arguments in commands:
        assert name == "frostline"
        assert frostline_in(tmp_path, *arguments) == 0, (arguments, capsys.readouterr().err)
    command = [sys.executable, "-c", PLAIN_DUCKDB, block_after("tests run this")]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(", 20, ") == 3


def test_the_tree_names_every_room() -> None:
    for room in ("frostline", "flows", "tasks", "storage", "deployments", "benchmarks", "docs", "tests"):
        assert f"\n{room}/ " in README
        assert (ROOT / room).is_dir()


def test_what_the_readme_and_the_guides_link_to_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 40
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_map_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:flows|tasks|storage|frostline|deployments|tests)/[\w/.*-]+)`", page))
    assert len(files) > 30
    assert {file for file in files if not list(ROOT.glob(file.rstrip("/")))} == set()


def test_the_recording_is_of_this_program_and_names_no_other_machine() -> None:
    svg = (ROOT / "docs" / "run.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "frostline" in svg
    assert not re.search(r"/(root|home|tmp|work|usr)/|@font-face|cdn", svg)

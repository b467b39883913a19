"""docs/training.md and its reference: their commands and code run, and the table is what the command prints."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.embed import embed
from flows.ingest import ingest
from flows.settings import RunSettings
from tasks.embed.settings import EmbedSettings
from tests.counting import Tally
from tests.pictures import write_folder

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "training.md", ROOT / "docs" / "training-reference.md")
TOUR, REFERENCE = (page.read_text(encoding="utf-8") for page in PAGES)


def find_commands(page: str) -> list[list[str]]:
    """Return the arguments of each command in the block that tests run."""
    block = re.search(r"<!-- tests run these -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert block
    commands = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert {name for name, *_ in commands} == {"frostline"}
    return [arguments for _, *arguments in commands]


def rows(text: str, border: str) -> list[list[str]]:
    """Read a table's rows without its header."""
    cells = [[cell.strip() for cell in line.split(border)[1:-1]] for line in text.splitlines() if line[:1] == border]
    return [row for row in cells if row[0] != "cut" and set(row[0]) != {"-"}]


def run_python(folder: Path, code: str) -> str:
    command, variables = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tour_runs_one_command_after_the_other(
    tally: Tally,
    frostline_in: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_folder(tmp_path / "photos")
    commands = find_commands(TOUR)
    assert len(commands) == 3
    for arguments in commands:
        assert frostline_in(tmp_path, *arguments) == 0, (arguments, capsys.readouterr().err)
    assert tally.images == 60


def test_links_lead_to_headings_of_the_reference() -> None:
    titles = re.findall(r"^#+ (.*)", REFERENCE, re.MULTILINE)
    headings = {title.lower().replace(" ", "-") for title in titles}
    targets = set(re.findall(r"training-reference\.md#([\w-]+)", TOUR)) | set(re.findall(r"\(#([\w-]+)\)", REFERENCE))
    assert len(targets) > 5
    assert targets <= headings


def test_the_commands_run_and_the_table_is_what_the_first_prints(
    frostline_in: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = []
    for arguments in find_commands(REFERENCE):
        assert frostline_in(tmp_path, *arguments) == 0, (arguments, capsys.readouterr().err)
        printed.append(capsys.readouterr().out)
    assert len(printed) == 3
    assert rows(REFERENCE, "|") == rows(printed[0], "│")
    assert len(rows(REFERENCE, "|")) == 20


def test_the_tail_takes_what_the_lake_holds(tmp_path: Path) -> None:
    flags = re.search(r"--embed\.cut (\S+) --embed\.pooling (\w+)", REFERENCE)
    code = re.search(r"```python\n(.*?)```", REFERENCE, re.DOTALL)
    assert flags
    assert code
    chosen = EmbedSettings.model_validate({"cut": flags[1], "pooling": flags[2]})
    settings = RunSettings(source=write_folder(tmp_path / "photos", 2), home=tmp_path / ".frostline", embed=chosen)
    ingest(settings)
    embed(settings)
    assert run_python(tmp_path, code[1]) == "torch.Size([6, 1280]) 1017600\n"

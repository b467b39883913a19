"""The page about training: its commands and its code run, and its table is what the command prints."""

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
from tests.pictures import write_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def rows(text: str, border: str) -> list[list[str]]:
    """Read a table's rows, less its head."""
    cells = [[cell.strip() for cell in line.split(border)[1:-1]] for line in text.splitlines() if line[:1] == border]
    return [row for row in cells if row[0] != "cut" and set(row[0]) != {"-"}]


def run(folder: Path, *command: str) -> str:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_the_commands_run_and_the_table_is_what_the_first_prints(
    frostline_in: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    commands = [shlex.split(line, comments=True) for line in blocks("sh")[0].splitlines()]
    printed = []
    for _, *arguments in commands:
        assert frostline_in(tmp_path, *arguments) == 0, (arguments, capsys.readouterr().err)
        printed.append(capsys.readouterr().out)
    assert len(printed) == 3
    assert rows(PAGE, "|") == rows(printed[0], "│")
    assert len(rows(PAGE, "|")) == 20


def test_the_tail_takes_what_the_lake_holds(prefect_api: str, tmp_path: Path) -> None:  # noqa: ARG001
    flags = re.search(r"--embed\.cut (\S+) --embed\.pooling (\w+)", PAGE)
    assert flags
    chosen = EmbedSettings.model_validate({"cut": flags[1], "pooling": flags[2]})
    settings = RunSettings(source=write_folder(tmp_path / "photos", 2), home=tmp_path / ".frostline", embed=chosen)
    ingest(settings)
    embed(settings)
    assert run(tmp_path, sys.executable, "-c", blocks("python")[0]) == "torch.Size([6, 1280]) 1017600\n"

"""docs/reading.md: every block runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from storage.lake.attach import read_lake
from storage.locations.home import Home, open_home
from tests.storage.lake.test_migrate import first as first  # noqa: PLC0414 - a fixture

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
FEAST = "<!-- runs where Feast is installed -->\n"


def blocks(*kinds: str) -> list[tuple[str, str]]:
    """Return (kind, text) of the page's blocks, except Feast's."""
    page = PAGE.partition(FEAST)[0]
    return [(kind, text) for kind, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL) if kind in kinds]


def run(folder: Path, *command: str) -> str:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@pytest.fixture
def folder(first: Home) -> Path:
    """A working directory with the page's lake."""
    return first.root.rename(first.root.with_name(".frostline")).parent


def test_commands_and_then_python_run_in_order(folder: Path) -> None:
    pytest.importorskip("datasets")
    commands = [shlex.split(line) for _, text in blocks("sh") for line in text.splitlines()]
    assert len(commands) == 4
    for name, *arguments in commands:
        assert name == "frostline"
        assert run(folder, sys.executable, "-m", "flows.start", *arguments)
    code = "\n".join(text for _, text in blocks("python"))
    assert code.count("import torch") == 1
    printed = run(folder, sys.executable, "-c", code)
    assert printed.startswith("31 images embedded by timm/tf_efficientnet_lite0")
    assert printed.endswith("['blue', 'green', 'red'] torch.Size([48])\n")


def test_queries_have_rows(folder: Path) -> None:
    queries = [text for _, text in blocks("sql")]
    assert len(queries) == 6
    read_lake(open_home(folder / ".frostline")).close()  # the first opening upgrades it
    with read_lake(open_home(folder / ".frostline")) as lake:
        for query in queries:
            assert lake.read(query)[1], query


def test_feast_reads_an_export(folder: Path) -> None:
    pytest.importorskip("feast", reason="Feast requires pandas 2 and cannot be installed next to Frostline")
    run(folder, sys.executable, "-m", "flows.start", "export", "features")
    (folder / "feature_store.yaml").write_text("project: photos\nprovider: local\nregistry: registry.db\n")
    code = re.search(re.escape(FEAST) + r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    run(folder, sys.executable, "-c", code[1] + "assert len(table) == 31")

"""The commands of docs/operations.md, each in its own process."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.lake.attach import open_lake
from storage.locations.home import open_home
from storage.tables.recipes import save_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tests.counting import decide_recipe
from tests.rows import DIM, NOW, add_features, label

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def frostline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.start", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def test_the_documented_commands_run_in_order(
    frostline_in: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_lake(open_home(tmp_path / ".frostline")) as lake:
        label(lake, range(4), "red")
        label(lake, range(4, 8), "blue")
        recipe = replace(decide_recipe(EmbedSettings(), Weights(Path("none"), "none")), shape=(DIM,))
        save_recipe(lake, {}, recipe, NOW)
        add_features(lake, range(8), recipe.recipe_id)
    found = re.search(r"<!-- tests run these -->\n```bash\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found
    for line in found[1].splitlines():
        code = frostline_in(tmp_path, *shlex.split(line, comments=True)[1:])
        assert code == 0, (line, capsys.readouterr().err)
    capsys.readouterr()
    assert frostline_in(tmp_path, "sql", "select class, count(*) from labels group by all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [["blue", 4]]


def test_erase_ignores_the_source_in_the_settings_file(
    frostline_in: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_lake(open_home(tmp_path / ".frostline")).close()
    (tmp_path / "frostline.toml").write_text('source = "photos"\n')
    code = frostline_in(tmp_path, "erase", "--yes")
    assert (code, "must name images" in capsys.readouterr().err) == (2, True)


def test_the_doctor_exits_with_1_if_something_is_wrong(tmp_path: Path) -> None:
    with open_lake(open_home(tmp_path / ".frostline")) as lake:
        lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('photos', uuid(), 'red', 'photos', now())"))
    ran = frostline(tmp_path, "doctor", "--json")
    (finding,) = json.loads(ran.stdout)["findings"]
    assert (ran.returncode, finding["check"], finding["repaired"]) == (1, "foreign image", False)

"""The page about Python: its code runs, names the whole public API, and the import stays cheap."""

import os
import re
import subprocess
import sys
from pathlib import Path

import frostline
from tests.pictures import write_folder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")

IMPORTED = """
import sys
import frostline
heavy = {"torch", "torchvision", "timm", "prefect", "mlflow", "pandas", "sklearn"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""

MODELS = """
import pytest
champion, numbered = model, frostline.open_model(".frostline", "photos", report["model"]["version"])
assert numbered.training_id == champion.training_id == report["training"]
assert numbered.classify(["photos/red/000.png"]) == champion.classify(["photos/red/000.png"])
for name, version in (("roses", 1), ("photos", 7), ("photos", "challenger")):
    with pytest.raises(frostline.FrostlineError):
        frostline.open_model(".frostline", name, version)
with frostline.read_lake(".frostline") as lake:
    stored = dict(lake.rows("SELECT path, class FROM predictions JOIN files USING (image_id)"))
paths = sorted(stored)
answers = model.classify([f"photos/{path}" for path in paths])
assert [answer.classes[0] for answer in answers] == [stored[path] for path in paths]
assert frostline.run(settings).to_json()["backbone_calls"] == 0
"""


def run_python(folder: Path, code: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_runs_and_a_model_answers_as_the_lake_predicts(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed = run_python(tmp_path, "\n".join([*blocks, MODELS])).splitlines()
    assert printed[0] == "60 images to embed because of {'new_image': 60}"
    assert printed[1].startswith("{'computed': 60, 'reused': 0, 'failed': 0}")
    assert "no-such-folder | does not exist | " in printed[2]
    assert printed[-2] == "('blue', 'green', 'red')"
    assert printed[-1].startswith("('red',) {'blue': ")
    assert printed[-1].endswith(" ('blue',)")


def test_the_page_names_the_whole_api() -> None:
    table = PAGE.partition("## Everything in it")[2]
    assert sorted(set(re.findall(r"`(\w+)`", table))) == sorted(frostline.__all__)


def test_the_import_loads_neither_torch_nor_prefect_nor_mlflow(tmp_path: Path) -> None:
    assert run_python(tmp_path, IMPORTED) == "[]\n"

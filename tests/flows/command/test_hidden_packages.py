"""Files of the user that are named like Frostline's packages: either they do not matter, or one line names the file."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from frostline_start.own_packages import PACKAGES

ROOT = Path(__file__).parents[3]
LOAD_FLOW = """
from prefect.flows import load_flow_from_entrypoint
load_flow_from_entrypoint("flows.pipeline.pipeline")
"""


def run(folder: Path, script: str, *arguments: str, path: tuple[Path, ...] = ()) -> tuple[int, list[str]]:
    """Run Python code as a script of another folder does; returns its exit code and the lines that it printed."""
    script_path = folder / "bin" / "script"
    script_path.parent.mkdir()
    script_path.write_text(script)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    command = [sys.executable, str(script_path), *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def write_command() -> str:
    """Write what an installer writes as the command ``frostline``."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["frostline"].partition(":")
    return f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with a file for each of our packages' names, which must not be imported."""
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    return tmp_path


def test_the_command_works_in_a_folder_whose_files_are_named_like_its_packages(crowded: Path) -> None:
    code, lines = run(crowded, write_command(), "plan", "nowhere")
    assert (code, len(lines)) == (2, 1)
    assert "nowhere" in lines[0]
    assert "does not exist" in lines[0]


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_the_command_names_a_file_on_pythonpath_that_hides_a_package(tmp_path: Path, name: str, form: str) -> None:
    hiding = tmp_path / "other" / form.format(name)
    hiding.parent.mkdir(parents=True)
    hiding.write_text("raise RuntimeError('imported')\n")
    code, lines = run(tmp_path, write_command(), "plan", "nowhere", path=(tmp_path / "other",))
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(
        f"frostline: {hiding}: hides Frostline's package {name}, which has the same name. Rename "
    )


def test_a_worker_names_a_file_in_its_folder_that_hides_a_package(crowded: Path) -> None:
    (crowded / "flows.py").unlink()
    code, lines = run(crowded, LOAD_FLOW)
    assert code == 1
    assert lines[-1].endswith(
        f"{crowded / 'tasks.py'}: hides Frostline's package tasks, which has the same name. "
        "Rename it, take its folder out of PYTHONPATH, or work in another folder."
    )
    assert not any("RuntimeError" in line for line in lines)

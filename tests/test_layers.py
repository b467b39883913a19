"""The rooms: who imports whom, how long functions and files are, and what a command never loads."""

import ast
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.lake.attach import open_lake
from storage.locations.home import open_home
from tests.pictures import write_folder

ROOT = Path(__file__).parents[1]
ROOMS = ("frostline", "deployments", "flows", "tasks", "storage")  # each imports those to its right
STEPS = ("ingest", "embed", "train", "register")
SHARED = ("encoder", "heads", "statistics")  # rooms under tasks/ that every step may import; they import storage alone
STEP_FILES = tuple(f"tasks/{step}/step.py" for step in STEPS)
HOMES = {
    "duckdb": ("storage/",),
    "mlflow": ("tasks/register/",),
    "prefect": ("flows/", "tasks/step_task.py", *STEP_FILES),
    "tasks.step_task": ("flows/", *STEP_FILES),  # it imports Prefect where a server is named
    **dict.fromkeys(
        ("torch", "torchvision", "timm"), ("tasks/encoder/", "tasks/embed/", "tasks/train/", "tasks/register/")
    ),
}
LONGEST_FILE, LONGEST_BODY, MEDIAN_BODY, FULLEST_FOLDER = 500, 60, 10, 14
IMPORTERS = ("import_module", "resolve_name", "__import__")
"""Functions that import what a string names, where no reader and no test of this file sees it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_modules() -> dict[str, str]:
    """Read the product's modules: path below the root, and text."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def list_imports(text: str) -> Iterator[str]:
    """Name every module that a text imports, anywhere in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def find_violations(path: str, text: str) -> set[str]:
    """Name the imports by which a module breaks the order of the rooms."""
    return {name for name in list_imports(text) if breaks_order(path, name) or breaks_home(path, name)}


def breaks_order(path: str, name: str) -> bool:
    here, *inside = path.split("/")
    there, *below = name.split(".")
    if name.startswith(".") or there == "tests":
        return True
    if there not in ROOMS:
        return False
    if there == here == "tasks":
        return bool(below) and below[0] in (*STEPS, *SHARED) and below[0] not in _rooms_open_to(inside[0])
    return ROOMS.index(there) < ROOMS.index(here)


def _rooms_open_to(room: str) -> tuple[str, ...]:
    return (room,) if room in SHARED else (room, *SHARED)


def breaks_home(path: str, name: str) -> bool:
    homes = [home for module, home in HOMES.items() if f"{name}.".startswith(f"{module}.")]
    return any(not path.startswith(home) for home in homes)


def find_hidden_imports(text: str) -> list[str]:
    """List the calls of functions that import what a string names."""
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return [name for name in names if name in IMPORTERS]


def find_circles(modules: dict[str, str]) -> list[set[str]]:
    """Find groups of modules that import each other, wherever in them the imports stand."""
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in modules}
    arrows = {name: {each for each in list_imports(modules[path]) if each in names} for name, path in names.items()}
    reached = {name: _reach(name, arrows) for name in names}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in names}
    return [set(group) for group in groups if group]


def _reach(start: str, arrows: dict[str, set[str]]) -> set[str]:
    """Name all modules that a module leads to; itself among them only if something leads back to it."""
    reached, waiting = set[str](), [start]
    while waiting:
        for name in arrows[waiting.pop()] - reached:
            reached.add(name)
            waiting.append(name)
    return reached


def measure_bodies(text: str) -> dict[str, int]:
    """Count the lines of each function's body, less its docstring."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    return {function.name: _measure_body(function) for function in functions}


def _measure_body(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def run_python(code: str, *arguments: object) -> str:
    """Run code in a process of its own; give its stdout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_lead_down_through_the_rooms_and_libraries_stay_in_theirs() -> None:
    modules = list_modules()
    assert len(modules) > 40
    assert {path: found for path, text in modules.items() if (found := find_violations(path, text))} == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("storage/lake.py", "from tasks.embed.find_recipe import resolve"),
        ("storage/lake/lake.py", "import flows.command.app"),
        ("tasks/embed/claim.py", "from flows.settings import RunSettings"),
        ("tasks/embed/claim.py", "def late():\n    from tasks.ingest.scan import scan"),
        ("tasks/embed/claim.py", "from tasks import ingest"),
        ("tasks/embed/claim.py", "from . import engine"),
        ("tasks/embed/claim.py", "import tests.counting"),
        ("tasks/embed/claim.py", "import prefect"),
        ("tasks/embed/claim.py", "import duckdb as db"),
        ("tasks/embed/step.py", "import mlflow.pyfunc"),
        ("flows/cli.py", "from deployments import nightly"),
        ("flows/cli.py", "if TYPE_CHECKING:\n    from duckdb import DuckDBPyConnection"),
        ("flows/cli.py", "import torch"),
        ("flows/cli.py", "import mlflow"),
        ("tasks/ingest/probe.py", "from torchvision import io"),
        ("tasks/ingest/probe.py", "import timm"),
        ("storage/vectors/export.py", "from prefect import task"),
        ("tasks/encoder/pack.py", "from tasks.embed.settings import EmbedSettings"),
        ("tasks/encoder/pack.py", "from tasks.heads.heads import Head"),
        ("tasks/heads/heads.py", "from tasks.encoder.layers import open_layers"),
        ("tasks/heads/heads.py", "def late():\n    from tasks.train.train import train_head"),
        ("tasks/heads/heads.py", "import torch"),
        ("tasks/statistics/shares.py", "from tasks.heads.heads import Head"),
        ("tasks/encoder/pack.py", "from prefect import task"),
        ("tasks/embed/claim.py", "from tasks.step_task import step_task"),
        ("tasks/heads/heads.py", "from tasks import step_task"),
        ("tasks/step_task.py", "from tasks.embed.claim import claim"),
        ("tasks/step_task.py", "import torch"),
        ("deployments/check.py", "import frostline"),
        ("flows/command/app.py", "from frostline import run"),
        ("frostline/__init__.py", "import torch"),
    ],
)
def test_a_planted_import_against_the_order_is_found(path: str, text: str) -> None:
    assert find_violations(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "flows/embed.py",
            "from prefect import flow\nfrom tasks.embed.step import run_shard\nimport storage.lake.lake",
        ),
        ("tasks/embed/step.py", "from prefect import task\nfrom tasks.embed.find_recipe import resolve\nimport torch"),
        ("tasks/register/registry/served.py", "import mlflow\nfrom tasks.heads.files import load_head"),
        ("storage/lake.py", "import duckdb\nfrom storage.locations.home import Home"),
        ("deployments/check.py", "from flows.pipeline import pipeline"),
        ("frostline/__init__.py", "from flows.pipeline import pipeline\nfrom storage.lake.lake import Lake"),
    ],
)
def test_an_import_in_the_order_is_allowed(path: str, text: str) -> None:
    assert find_violations(path, text) == set()


def test_each_init_file_is_there_and_empty_but_for_the_public_one_and_the_one_that_prefect_imports_first() -> None:
    folders = {(ROOT / path).parent for path in list_modules()}
    filled = {path for path, text in list_modules().items() if path.endswith("__init__.py") and text}
    assert filled == {"frostline/__init__.py", "flows/__init__.py"}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_no_folder_is_crowded() -> None:
    assert find_crowded(list_modules()) == {}


def test_a_planted_crowd_is_found() -> None:
    paths = [f"tasks/room/file_{number}.py" for number in range(FULLEST_FOLDER + 1)]
    assert find_crowded(paths) == {"tasks/room": FULLEST_FOLDER + 1}
    assert find_crowded(paths[1:]) == {}


def find_crowded(paths: Iterable[str]) -> dict[str, int]:
    """Count the modules of each folder that has too many."""
    folders = Counter(path.rpartition("/")[0] for path in paths)
    return {folder: files for folder, files in folders.items() if files > FULLEST_FOLDER}


def test_files_and_functions_are_short() -> None:
    modules = list_modules()
    bodies = {f"{path}:{name}": lines for path, text in modules.items() for name, lines in measure_bodies(text).items()}
    assert {path for path, text in modules.items() if len(text.splitlines()) >= LONGEST_FILE} == set()
    assert {name: lines for name, lines in bodies.items() if lines > LONGEST_BODY} == {}
    assert statistics.median(bodies.values()) <= MEDIAN_BODY


def test_a_planted_long_function_is_measured() -> None:
    text = 'def long():\n    """Say.\n\n    More.\n    """\n' + "    x = 1\n" * 61 + "def short(): ...\n"
    assert measure_bodies(text) == {"long": 61, "short": 1}


BLOCKED = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("duckdb", "prefect", "mlflow", "torch", "torchvision", "timm", "pydantic"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
importlib.import_module(sys.argv[1])
print("imported")
"""


@pytest.mark.parametrize(
    "module", ["storage.vectors.feature_file", "storage.recipe", "tasks.embed.pipeline", "tasks.encoder.pixels.decode"]
)
def test_a_worker_with_little_but_numpy_and_pyarrow_can_import(module: str) -> None:
    assert run_python(BLOCKED, module) == "imported\n"


def test_the_block_of_libraries_holds() -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError: duckdb"):
        run_python(BLOCKED, "storage.lake.lake")


COMMAND = """
import sys

unwanted, sys.argv[1:] = sys.argv[1].split(","), sys.argv[2:]
from flows.start import main
main()
loaded = {name.split(".")[0] for name in sys.modules}
assert "storage" in loaded
assert not loaded & set(unwanted), sorted(loaded & set(unwanted))
"""


def test_plan_sql_and_status_load_neither_torch_nor_prefect_nor_mlflow(tmp_path: Path) -> None:
    photos, home = write_folder(tmp_path / "photos"), tmp_path / "home"
    unwanted = "torch,torchvision,timm,prefect,mlflow"
    run_python(COMMAND, unwanted, "plan", photos, "--home", home)  # where there is no lake yet
    open_lake(open_home(home)).close()
    for command in (("plan", photos), ("sql", "from labels"), ("status",)):
        run_python(COMMAND, unwanted, *command, "--home", home)


def test_a_run_with_nothing_to_do_never_loads_torch(first_report: dict[str, Any], photos: Path, home: Path) -> None:
    first = first_report
    unwanted = "torch,torchvision,timm,prefect"
    second = json.loads(run_python(COMMAND, unwanted, "run", photos, "--home", home, "--json"))
    assert (first["backbone_calls"], second["backbone_calls"]) == (60, 0)
    assert second["model"] == {**first["model"], "new": False, "gate": "registered before"}


def test_the_watch_over_what_a_command_loads_can_fail(tmp_path: Path) -> None:
    open_lake(open_home(tmp_path)).close()
    with pytest.raises(AssertionError, match="duckdb"):
        run_python(COMMAND, "duckdb", "status", "--home", tmp_path)

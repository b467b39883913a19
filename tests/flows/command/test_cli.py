"""The command line: JSON, exit codes, and one line for an error that the user can fix."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.command.app import run_command
from flows.settings import RunSettings
from flows.train import train
from storage.lake.attach import open_lake
from storage.lake.snapshots import tag_snapshot
from storage.locations.home import open_home
from tests.counting import Tally
from tests.pictures import write_folder, write_image

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer


Frostline = Callable[..., CommandResult]


@pytest.fixture
def process(tmp_path: Path, home: Path) -> Frostline:
    """Run ``frostline`` in its own process and folder, with the counting backbone."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> CommandResult:
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COUNTING_LOG": str(tmp_path / "calls"),
            "FROSTLINE_HOME": str(home),
            **(env or {}),
        }
        command = [sys.executable, "-m", "tests.counting", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        return CommandResult(ran.returncode, ran.stdout, ran.stderr)

    return call


@pytest.fixture
def real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Frostline:
    """Run a command in this process, which has imported everything already."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> CommandResult:
        capsys.readouterr()
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            for name, value in {"FROSTLINE_HOME": str(tmp_path / "home"), **(env or {})}.items():
                patch.setenv(name, value)
            try:
                run_command(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return CommandResult(code, *capsys.readouterr())

    return call


@pytest.fixture
def frostline(real: Frostline, home: Path, tally: Tally) -> Frostline:  # noqa: ARG001
    """Run a command in this process, with the counting backbone."""
    return real


def refused(ran: CommandResult, *words: str) -> None:
    """Assert exit code 2 and one line with these words, without a traceback."""
    assert ran.code == 2, ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("frostline: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0]


def list_file_sizes(home: Path) -> dict[Path, int]:
    """Return the sizes of the lake's files, without those that SQLite creates beside a catalog even to read it."""
    sqlite_files = {"catalog.sqlite-wal", "catalog.sqlite-shm"}
    files = [path for path in home.rglob("*") if path.is_file() and not {"mlflow", "reports"} & set(path.parts)]
    return {path: path.stat().st_size for path in files if path.name not in sqlite_files}


def test_run_plan_sql_and_status_print_json(frostline: Frostline, photos: Path, home: Path) -> None:
    before = list_file_sizes(home)
    plan = frostline("plan", str(photos), "--json").answer
    assert (plan["compute"], plan["reuse"], plan["reasons"]) == (60, 0, {"new_image": 60})
    assert plan["estimate"] == {"seconds": None, "bytes": None}
    assert list_file_sizes(home) == before
    report = frostline("run", str(photos), "--json").answer
    assert report["features"]["computed"] == plan["compute"]
    write_image(photos / "red" / "new.png", "red", seed=500)
    write_image(photos / "red" / "000.png", "red", seed=501)
    (photos / "red" / "001.png").rename(photos / "red" / "renamed.png")
    before = list_file_sizes(home)
    plan = frostline("plan", str(photos), "--json").answer
    assert (plan["compute"], plan["reuse"]) == (2, 59)
    assert plan["reasons"] == {"bytes_changed": 1, "new_image": 1}
    assert plan["estimate"]["seconds"] > 0
    assert plan["estimate"]["bytes"] > 0
    assert list_file_sizes(home) == before
    labels = frostline("sql", "select class, count(*) as n from labels group by all order by all", "--json").answer
    assert labels == {"columns": ["class", "n"], "rows": [["blue", 20], ["green", 20], ["red", 20]]}
    then = frostline("sql", "select count(*) from features", "--at", "1", "--json").answer
    assert then["rows"] == [[0]]
    status = frostline("status", "--json").answer
    assert (status["images"], status["features"], status["failed"]) == (60, 60, 0)
    assert [(model["name"], model["version"]) for model in status["models"]] == [("photos", 1)]
    refused(frostline("sql", "delete from labels"), "read-only")
    refused(frostline("sql", "from labels", "--at", "9999"), "9999")


def test_flags_override_the_environment_the_environment_the_file_and_the_file_the_defaults(
    frostline: Frostline, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "frostline.toml").write_text(f'source = "{photos}"\nname = "file"\n[embed]\nshard = 0\n')
    refused(frostline("plan"), "embed.shard", "greater than or equal to 1")
    (tmp_path / "frostline.toml").write_text(
        '[train]\nheads = ["tail"]\nfolds = 5\n'
    )  # train is also the name of a command
    for command in ("run", "train", "plan"):
        refused(frostline(command, str(photos)), "train", ": folds 5 would train as many tails")
    (tmp_path / "frostline.toml").write_text(f'source = "{photos}"\nname = "file/"\n')
    refused(frostline("plan"), "file/")
    refused(frostline("plan", env={"FROSTLINE_NAME": "environment/"}), "environment/")
    refused(frostline("plan", "--name", "flag/", env={"FROSTLINE_NAME": "environment/"}), "flag/")
    assert frostline("plan", "--name", "flag", "--json").answer["compute"] == 60


def test_a_misspelt_setting_is_refused_with_a_suggestion(frostline: Frostline, photos: Path, tmp_path: Path) -> None:
    refused(frostline("plan", str(photos), "--embed.backbon", "x"), "--embed.backbon", "--embed.backbone")
    refused(frostline("plan", str(photos), env={"FROSTLINE_EMBED_BACKBON": "x"}), "FROSTLINE_EMBED_BACKBONE")
    (tmp_path / "mine.toml").write_text("[embed]\nbackbon = 'x'\n")
    refused(frostline("plan", str(photos), "--config", "mine.toml"), "embed.backbon", "mine.toml", "embed.backbone?")
    refused(frostline("plan", str(photos), "--config", "none.toml"), "none.toml")
    (tmp_path / "mine.toml").write_text("[embed\n")
    refused(frostline("plan", str(photos), "--config", "mine.toml"), "mine.toml", "TOML")


def test_a_user_error_is_one_line_with_exit_code_2_and_leaves_the_lake_unchanged(
    frostline: Frostline, process: Frostline, photos: Path, home: Path, tmp_path: Path
) -> None:
    assert frostline("run", str(photos)).code == 0
    before = list_file_sizes(home)
    (tmp_path / "empty").mkdir()
    one_class = write_folder(tmp_path / "one", 20, ("red",))
    refused(frostline("run", str(tmp_path / "missing")), "missing", "does not exist")
    refused(frostline("run", str(tmp_path / "empty")), "empty", "no image")
    refused(frostline("run", str(one_class)), "1 class (red)", "two classes")
    refused(frostline("run", str(photos / "red" / "000.png")), "000.png", "single image")
    refused(frostline("run", str(photos), "--embed.weights", "none.pth"), "none.pth", "not a file")
    refused(frostline("run", str(photos), "--embed.weights", "timm:x", "--embed.backbone", "a/b"), "a/b", "timm/NAME")
    refused(frostline("run", str(photos), "--home", str(photos / "red" / "000.png")), "home", "--home")
    refused(frostline("run"), "source", "frostline run FOLDER")
    refused(process("rum"), "rum", "run")
    refused(frostline("run", str(photos), "--train.heads", "softmax", "ridge"), "ridge", "before each value")
    assert list_file_sizes(home) == before


def test_an_error_names_the_prefect_server_that_is_down(process: Frostline, photos: Path) -> None:
    refused(process("run", str(photos), env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}), "Prefect", "127.0.0.1:9")


def test_an_unknown_backbone_and_weights_that_do_not_fit_are_refused(real: Frostline, photos: Path, home: Path) -> None:
    from safetensors.numpy import save_file

    wrong = photos.parent / "wrong.safetensors"
    save_file({}, wrong)
    before = list_file_sizes(home)
    for backbone, words in (
        ("torchvision/resnet19", ["resnet19", "resnet18"]),
        ("torchvision/resnet18", ["wrong.safetensors", "fit"]),
    ):
        refused(real("run", str(photos), "--embed.backbone", backbone, "--embed.weights", str(wrong)), *words)
    assert list_file_sizes(home) == before


def test_cuts_lists_a_networks_cuts_and_suggests_a_name_for_an_unknown_network(real: Frostline, tmp_path: Path) -> None:
    answer = real("cuts", "torchvision/resnet18", "--embed.stored", "float32", "--json").answer
    assert (answer["backbone"], answer["stored"]) == ("torchvision/resnet18", "float32")
    assert answer["cuts"][-1] == {
        "name": "avgpool",
        "shape": [512],
        "bytes": 2048,
        "flops_saved": pytest.approx(1 - 512_000 / 1_814_073_344),
        "parameters_left": 513_000,
    }
    refused(real("cuts", "torchvision/resnet19"), "resnet19", "torchvision/resnet18")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("first_report")
def test_training_at_a_tag_uses_the_lake_as_of_the_tag(
    run: Callable[..., dict[str, Any]], frostline: Frostline, photos: Path, home: Path
) -> None:
    first = train(RunSettings(source=photos, home=home)).training
    with open_lake(open_home(home)) as lake:
        tag_snapshot(lake, "then", None, datetime.now(UTC))
    for number in range(20):
        write_image(photos / "red" / f"more-{number}.png", "red", 900 + number)
    run()
    assert train(RunSettings(source=photos, home=home)).training.training_id != first.training_id
    then = frostline("train", str(photos), "--at", "then", "--json").answer
    assert (then["training"], then["metrics"], then["trained"]) == (first.training_id, first.metrics, False)

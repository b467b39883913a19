"""What the commands on the lake print, and how they fail in one line; called in this process."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows import start
from flows.command.app import run_command
from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import open_home
from storage.locations.urls import mask
from storage.tables.recipes import save_recipe
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tests.counting import decide_recipe
from tests.first_run import copy_homes
from tests.rows import DIM, NOW, add_features, label
from tests.servers import ROOT


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


Call = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose home has eight images in two classes, made once."""
    folder = tmp_path_factory.mktemp("output")
    with open_lake(open_home(folder / ".frostline")) as lake:
        label(lake, range(4), "red")
        label(lake, range(4, 8), "blue")
        recipe = replace(decide_recipe(EmbedSettings(), Weights(Path("none"), "none")), shape=(DIM,))
        save_recipe(lake, {}, recipe, NOW)
        add_features(lake, range(8), recipe.recipe_id)
    return folder


@pytest.fixture
def frostline(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run a command in a copy of that folder."""
    copy_homes(template, tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> CommandResult:
        code = 0
        try:
            run_command(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return CommandResult(code, out, err)

    return call


def refused(result: CommandResult, *words: str) -> None:
    """Assert exit code 2 and one line with these words."""
    assert (result.code, result.out) == (2, ""), result
    (line,) = result.err.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize("query", ["", "  ", ";", "/* nothing */"])
def test_an_empty_query_is_refused(frostline: Call, query: str) -> None:
    refused(frostline("sql", query), "is empty", "from labels")


@pytest.mark.parametrize("at", ["9999", "9" * 30])
def test_an_error_names_the_missing_snapshot_and_how_to_list_them(frostline: Call, at: str) -> None:
    refused(frostline("sql", "from labels", "--at", at), f"snapshot {at}", "has expired", "ducklake_snapshots")


def test_a_snapshot_that_only_looks_like_a_number_is_an_unknown_tag(frostline: Call) -> None:
    refused(frostline("sql", "from labels", "--at", "\u00b2"), "tag '\u00b2'")


@pytest.mark.parametrize(
    "command", [("diff", "0", "1"), ("tag", "first", "--at", "0"), ("sql", "from labels", "--at", "0")]
)
def test_the_snapshot_before_the_tables_is_refused(frostline: Call, command: tuple[str, ...]) -> None:
    refused(frostline(*command), "has no tables yet", "Choose a later")


@pytest.mark.parametrize(
    "command",
    [
        *(("sql", "from labels"), ("status",), ("diff", "1", "2"), ("lineage", "photos"), ("export", "there")),
        *(("maintain", "--dry-run"), ("erase", "--source", "photos", "--dry-run"), ("doctor",), ("doctor", "--repair")),
    ],
)
def test_a_home_without_a_lake_is_refused_and_not_shown_as_empty(frostline: Call, command: tuple[str, ...]) -> None:
    refused(frostline(*command, "--home", "nowhere"), "nowhere: has no lake", "--home")
    assert not Path("nowhere").exists()


def test_nan_and_infinities_become_null_in_json(frostline: Call) -> None:
    result = frostline("sql", "select 'nan'::float as a, [1.5::float, '-inf'] as b, {'c': 'inf'::float} as d", "--json")
    assert result.answer["rows"] == [[None, [1.5, None], {"c": None}]]


def test_a_table_in_a_pipe_has_one_line_per_row(frostline: Call) -> None:
    lines = frostline("sql", f"select image_id, '{'x' * 300}' as long from images").out.splitlines()
    assert len([line for line in lines if f"00000000-0000-0000-0000-000000000000 │ {'x' * 300} " in line]) == 1


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_closed_pipe_ends_the_command_quietly(
    frostline: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        result = frostline("sql", "from range(20000)", *flags)
    assert (result.code, result.err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_full_disk_behind_stdout_is_a_one_line_error(
    frostline: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        refused(frostline("sql", "from labels", *flags), "stdout", "No space left")


def test_a_closed_stdout_is_not_an_error(frostline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert frostline("status").code == 0


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("class = 'red') OR (true", "syntax error"),
        ("class = 'red'\n) UNION SELECT image_id FROM images WHERE (true", "syntax error"),
        ("true; select 1", "single"),
        ("class = 'red', true", "single expression"),
        ("width", "has type INTEGER, not BOOLEAN"),
        ("'yes'", "has type VARCHAR"),
        ("1/0", "has type DOUBLE"),
        ("class = $1", "parameter"),
    ],
)
@pytest.mark.parametrize("command", [("erase", "--dry-run"), ("export", "there")])
def test_anything_but_a_single_condition_is_refused(
    frostline: Call, command: tuple[str, ...], where: str, rule: str
) -> None:
    refused(frostline(*command, "--where", where), rule)


def test_a_condition_may_end_in_a_comment(frostline: Call) -> None:
    assert frostline("erase", "--where", "class = 'red' -- all of them", "--dry-run", "--json").answer["images"] == 4


@pytest.mark.parametrize("age", ["-1d", "999999999d", "40000d"])
@pytest.mark.parametrize("name", ["--older-than", "--grace"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_an_impossible_age_is_refused(frostline: Call, name: str, age: str, flags: tuple[str, ...]) -> None:
    refused(frostline("maintain", name, age, *flags), name.removeprefix("--").replace("-", "_"), "0 and 100 years")


def test_the_lineage_of_an_unknown_image_is_refused(frostline: Call) -> None:
    refused(frostline("lineage", "73bb729d-83a6-7c8c-56e3-5d678634ef7e"), "does not exist in this lake", "from files")
    known = frostline("lineage", "00000000-0000-0000-0000-000000000001", "--json").answer
    assert known["used_by"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--lake", "postgresql://me:hunter2@db/lake"),
        ("status", "postgresql://me:hunter2@db/lake"),
        ("status", "--lake.catalog", "postgresql://db/lake?pass%77ord=hunter2"),
        ("status", "--lake.catalog", 'postgres:dbname=lake "password" = hunter2'),
        ("status", "--lake.catalog", "postgres:dbname=lake password = 'hunter2'"),
        ("status", "--config", "list.toml"),
    ],
)
def test_no_message_shows_a_password_from_the_wrong_setting(frostline: Call, arguments: tuple[str, ...]) -> None:
    Path("list.toml").write_text('[lake]\ncatalog = ["postgresql://me:hunter2@db/lake"]\n')
    result = frostline(*arguments)
    assert (result.code, "hunter2" in result.err + result.out) == (2, False), result


def test_a_message_without_a_password_is_unchanged() -> None:
    for text in ("lake postgres:dbname=lake host=127.0.0.1 port=1: no", "http://127.0.0.1:4200/api", "50%25 of a: b"):
        assert mask(text) == text


def test_an_interrupt_during_imports_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_: str) -> None:
        signal.raise_signal(signal.SIGINT)

    loading = ModuleType("flows.command.app")
    monkeypatch.setattr(loading, "__getattr__", load, raising=False)
    monkeypatch.setitem(sys.modules, "flows.command.app", loading)
    monkeypatch.setattr(threading.Timer, "start", lambda _: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            start.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (end.value.code, capsys.readouterr().err.count("\n")) == (130, 1)


def test_interrupts_are_handled_before_slow_imports() -> None:
    code = "import sys, flows.start; print(len({'cyclopts', 'pydantic', 'duckdb'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"


def test_interrupting_a_query_interrupts_the_command(frostline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Lake, sql: str) -> None:  # noqa: ARG001 - the signature of Lake.read
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(Lake, "read", read)
    with pytest.raises(KeyboardInterrupt):
        frostline("sql", "from labels")


def test_an_erasure_without_arguments_reports_that_none_is_unfinished(frostline: Call) -> None:
    refused(frostline("erase", "--yes"), "must name images", "no interrupted erasure is left to finish")

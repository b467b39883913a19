"""What the lake's commands answer, and refuse in one line, called in this process."""

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
class Said:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:  # noqa: ANN401 - as the command has it
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


Call = Callable[..., Said]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose home holds eight images in two classes, made once."""
    folder = tmp_path_factory.mktemp("answers")
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
    """Call a command in a copy of that folder."""
    copy_homes(template, tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Said:
        code = 0
        try:
            run_command(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


def refused(said: Said, *words: str) -> None:
    """Exit code 2 and one line with these words in it."""
    assert (said.code, said.out) == (2, ""), said
    (line,) = said.err.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize("query", ["", "  ", ";", "/* nothing */"])
def test_a_query_that_says_nothing_is_refused(frostline: Call, query: str) -> None:
    refused(frostline("sql", query), "is empty", "from labels")


@pytest.mark.parametrize("at", ["9999", "9" * 30])
def test_a_snapshot_that_is_not_there_is_named_with_the_way_to_list_them(frostline: Call, at: str) -> None:
    refused(frostline("sql", "from labels", "--at", at), f"snapshot {at}", "has expired", "ducklake_snapshots")


def test_what_looks_like_a_number_and_is_none_is_an_unknown_tag(frostline: Call) -> None:
    refused(frostline("sql", "from labels", "--at", "\u00b2"), "tag '\u00b2'")


@pytest.mark.parametrize(
    "command", [("diff", "0", "1"), ("tag", "first", "--at", "0"), ("sql", "from labels", "--at", "0")]
)
def test_the_snapshot_before_the_tables_is_refused_as_such(frostline: Call, command: tuple[str, ...]) -> None:
    refused(frostline(*command), "has no tables yet", "Choose a later")


@pytest.mark.parametrize(
    "command",
    [
        *(("sql", "from labels"), ("status",), ("diff", "1", "2"), ("lineage", "photos"), ("export", "there")),
        *(("maintain", "--dry-run"), ("erase", "--source", "photos", "--dry-run"), ("doctor",), ("doctor", "--repair")),
    ],
)
def test_a_home_without_a_lake_is_refused_rather_than_shown_as_an_empty_one(
    frostline: Call, command: tuple[str, ...]
) -> None:
    refused(frostline(*command, "--home", "nowhere"), "nowhere: has no lake", "--home")
    assert not Path("nowhere").exists()


def test_an_object_is_json_for_every_reader(frostline: Call) -> None:
    said = frostline("sql", "select 'nan'::float as a, [1.5::float, '-inf'] as b, {'c': 'inf'::float} as d", "--json")
    assert said.answer["rows"] == [[None, [1.5, None], {"c": None}]]


def test_a_table_behind_a_pipe_has_each_row_in_one_line(frostline: Call) -> None:
    lines = frostline("sql", f"select image_id, '{'x' * 300}' as long from images").out.splitlines()
    assert len([line for line in lines if f"00000000-0000-0000-0000-000000000000 │ {'x' * 300} " in line]) == 1


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_has_seen_enough_ends_it_quietly(
    frostline: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        said = frostline("sql", "from range(20000)", *flags)
    assert (said.code, said.err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_answer_that_finds_no_room_is_one_line(
    frostline: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        refused(frostline("sql", "from labels", *flags), "stdout", "No space left")


def test_an_answer_that_nobody_wants_is_none(frostline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert frostline("status").code == 0


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("class = 'red') OR (true", "syntax error"),
        ("class = 'red'\n) UNION SELECT image_id FROM images WHERE (true", "syntax error"),
        ("true; select 1", "single"),
        ("class = 'red', true", "single expression"),
        ("width", "is of type INTEGER, not true or false"),
        ("'yes'", "is of type VARCHAR"),
        ("1/0", "is of type DOUBLE"),
        ("class = $1", "parameter"),
    ],
)
@pytest.mark.parametrize("command", [("erase", "--dry-run"), ("export", "there")])
def test_what_is_no_single_condition_takes_nothing(
    frostline: Call, command: tuple[str, ...], where: str, rule: str
) -> None:
    refused(frostline(*command, "--where", where), rule)


def test_a_condition_may_end_in_a_remark(frostline: Call) -> None:
    assert frostline("erase", "--where", "class = 'red' -- all of it", "--dry-run", "--json").answer["images"] == 4


@pytest.mark.parametrize("age", ["-1d", "999999999d", "40000d"])
@pytest.mark.parametrize("name", ["--older-than", "--grace"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_an_age_that_is_none_expires_and_deletes_nothing(
    frostline: Call, name: str, age: str, flags: tuple[str, ...]
) -> None:
    refused(frostline("maintain", name, age, *flags), name.removeprefix("--").replace("-", "_"), "0 and 100 years")


def test_an_image_that_nobody_knows_has_no_lineage(frostline: Call) -> None:
    refused(frostline("lineage", "73bb729d-83a6-7c8c-56e3-5d678634ef7e"), "none that this lake knows", "from files")
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
def test_a_password_in_the_wrong_place_is_in_no_message(frostline: Call, arguments: tuple[str, ...]) -> None:
    Path("list.toml").write_text('[lake]\ncatalog = ["postgresql://me:hunter2@db/lake"]\n')
    said = frostline(*arguments)
    assert (said.code, "hunter2" in said.err + said.out) == (2, False), said


def test_a_message_without_a_password_is_shown_as_it_is() -> None:
    for text in ("lake postgres:dbname=lake host=127.0.0.1 port=1: no", "http://127.0.0.1:4200/api", "50%25 of a: b"):
        assert mask(text) == text


def test_an_interrupt_while_the_command_is_still_loading_is_no_traceback(
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


def test_the_process_listens_for_an_interrupt_before_it_loads_what_takes_long() -> None:
    code = "import sys, flows.start; print(len({'cyclopts', 'pydantic', 'duckdb'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"


def test_a_query_that_is_interrupted_is_an_interrupt(frostline: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Lake, sql: str) -> None:  # noqa: ARG001 - as Lake.read has it
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(Lake, "read", read)
    with pytest.raises(KeyboardInterrupt):
        frostline("sql", "from labels")


def test_an_erasure_of_nothing_says_that_none_is_left_to_finish(frostline: Call) -> None:
    refused(frostline("erase", "--yes"), "must name images", "no interrupted erasure is left to finish")

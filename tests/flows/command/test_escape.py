"""Names from outside are text in every medium: a terminal, JSON, Markdown, a spreadsheet."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.command.app import run_command
from flows.reports.escape import escape_json, escape_markdown, escape_terminal
from flows.reports.output import OutputOptions, build_table, build_tables, print_result
from flows.reports.run_lines import lines_to_markdown
from tasks.train.review.review_table import ReviewRow, read_table, write_table
from tests.pictures import write_folder

EVIL = "\x1b]0;owned\x07\x9b31mred\r\nforged line\u202e\u2028\udce4 :smile: [bold]"
SHOWN = r"\x1b]0;owned\x07\x9b31mred\r\nforged line\u202e\u2028\udce4 :smile: [bold]"


def test_a_terminal_gets_escapes_in_place_of_control_characters() -> None:
    assert escape_terminal(EVIL) == SHOWN
    assert escape_terminal("Rosé · 薔薇 · ورد\u200d") == "Rosé · 薔薇 · ورد\u200d"


@pytest.mark.parametrize(
    "render",
    [
        lambda: [EVIL],
        lambda: build_table([EVIL], [[1]]),
        lambda: build_table(["name"], [[EVIL]]),
        lambda: build_table(["name"], [[1]], title=EVIL),
        lambda: build_tables({"name": EVIL, "rows": [{"path": EVIL}]}),
    ],
)
def test_lines_and_tables_show_names_as_they_are_and_on_one_line(
    render: Callable[[], list[object]], capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(OutputOptions(), {}, render)
    out = capsys.readouterr().out
    assert SHOWN in out
    assert "\x1b" not in out


def test_json_holds_the_name_itself_and_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(OutputOptions(json=True), {"name": EVIL}, list)
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": EVIL}
    assert escape_json(out) == out == f"{escape_terminal(out[:-1])}\n"


def test_an_error_shows_the_name_that_it_is_about_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_command(["plan", str(tmp_path / "\x1b[2Jgone")])
    err = capsys.readouterr().err
    assert r"\x1b[2Jgone" in err
    assert "\x1b" not in err


def test_a_plan_shows_class_names_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_folder(tmp_path / "photos", 20, ("red", "blue"))
    (photos / "blue").rename(photos / "blue\x1b[31m")
    run_command(["plan", str(photos), "--home", str(tmp_path / "home")])
    out = capsys.readouterr().out
    assert r"blue\x1b[31m 20" in out
    assert "\x1b" not in out


def test_markdown_shows_markup_as_text() -> None:
    assert escape_markdown("a|b `c` <img src=x> [d](e) *f* _g_ ~h~ $i$ &amp; \\") == (
        r"a\|b \`c\` \<img src=x\> \[d\](e) \*f\* \_g\_ \~h\~ \$i\$ \&amp; \\"
    )
    table = lines_to_markdown("# <b>", ["images    60 | <script>\n# more"])
    assert table == "# # \\<b\\>\n\n| | |\n|---|---|\n| images | 60 \\| \\<script\\>\\\\n# more |\n"


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", " =x", "\tx", "\uff1dx", "'=x", "'x", "plain", ""]
)
def test_a_review_table_holds_no_formula_and_reads_back_the_same_names(tmp_path: Path, name: str) -> None:
    file = tmp_path / "review.csv"
    row = ReviewRow("label", "00000000-0000-0000-0000-000000000001", f"{name}/1.png", name, name, "", "", name)
    write_table([row], file)
    cells = file.read_text().splitlines()[1].replace('"', "").split(",")
    assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\uff1d")) for cell in cells)
    (read,) = read_table(file)
    assert (read.label.strip(), read.decision.strip()) == (name.strip(), name.strip())

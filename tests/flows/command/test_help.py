"""The help of a command fits on one screen; ``--help-all`` lists every setting."""

from collections.abc import Callable

import pytest

from flows.command.app import GROUPS, run_command
from flows.command.config import list_settings
from flows.settings import RunSettings

COMMANDS = [command.__name__ for group in GROUPS.values() for command in group]
OWN = {
    "run": ("SOURCE", "--name", "--retry", "--embed.*", "--train.*", "--registry.*", "--home", "--json"),
    "plan": ("SOURCE", "--embed.*", "--lake.*"),
    "train": ("--at", "--cut", "--search.*", "--train.*"),
    "cuts": ("BACKBONE", "--embed.weights", "--embed.crop"),
    "evaluate": ("SOURCE", "VERSION", "--html", "--name"),
    "review": ("--folder", "--apply"),
    "erase": ("--where", "--dry-run", "--yes", "--home"),
    "export": ("FOLDER", "--recipe", "--where", "--format"),
    "demo": ("--home", "--json"),
}
FOREIGN = {"cuts": "--train", "evaluate": "--embed", "sql": "--embed", "demo": "--embed", "train": "--registry"}

Show = Callable[..., list[str]]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Return the lines that a command line prints on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> list[str]:
        run_command(arguments)
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_help_shows_its_own_flags_in_at_most_40_lines(show: Show, command: str) -> None:
    lines = show(command, "--help")
    text = "\n".join(lines)
    assert len(lines) <= 40, text
    for flag in (*OWN.get(command, ("--json",)), f"frostline {command} --help-all"):
        assert flag in text
    assert FOREIGN.get(command, "FROSTLINE_") not in text


@pytest.mark.parametrize("command", ["run", "train"])
def test_help_all_lists_every_setting_with_its_variable(show: Show, command: str) -> None:
    text = "\n".join(show(command, "--help-all"))
    for name in list_settings(RunSettings):
        assert f"--{name.replace('_', '-')}" in text
    assert "FROSTLINE_RETRY" in text


def test_the_overview_lists_all_commands(show: Show) -> None:
    for arguments in (["--help"], ["--help-all"]):
        text = "\n".join(show(*arguments))
        assert all(command in text for command in COMMANDS)


def test_version_is_that_of_the_installed_package(show: Show) -> None:
    from importlib.metadata import version

    assert show("--version") == [version("frostline")]

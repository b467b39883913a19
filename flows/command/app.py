"""The command line: its commands by group, its settings, and its error messages."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import cyclopts
import pydantic
from cyclopts import App
from cyclopts.config import Dict, Env

from flows.command.care import doctor, erase, maintain, move, tag
from flows.command.config import check_environment, read_config
from flows.command.help import ShortHelp, describe_rest, want_all
from flows.command.inspect import diff, export, lineage, sql, status
from flows.command.run import demo, plan, run
from flows.command.train import cuts, evaluate, review, train
from flows.reports.escape import escape_terminal
from flows.reports.output import OutputOptions
from flows.settings import read_environment
from storage.errors import FrostlineError, SettingsError, find_os_error, is_interrupt
from storage.locations.urls import mask

GROUPS = {
    "Run the pipeline": (demo, run, plan),
    "Train and evaluate": (cuts, train, evaluate, review),
    "Read the lake": (sql, status, lineage, diff, export),
    "Look after the lake": (tag, maintain, erase, doctor, move),
}
USER_ERROR, UNEXPECTED_ERROR = 2, 1
"""Exit codes: what the user can fix, and what nobody foresaw."""
LIST_HINT = "Write a list's flag before each value: --train.heads softmax --train.heads ridge"


def build_app(arguments: Sequence[str], *, full_help: bool = False) -> App:
    """Build the command line, with the settings file that the arguments name.

    Args:
        arguments: The command line, less the program.
        full_help: Whether the help of a command lists every setting.

    Raises:
        SettingsError: if the file or the environment has an unknown setting.
    """
    values = read_config(_find_config(arguments))
    check_environment(read_environment(), [field.name for field in dataclasses.fields(OutputOptions)] + ["at"])
    commands = [command for group in GROUPS.values() for command in group]
    # One copy per command: at the top level, cyclopts takes a table [train] for the command `train`.
    file = Dict({command.__name__: values for command in commands}, allow_unknown=True, source="frostline.toml")
    app = App(
        name="frostline",
        help="Transfer learning as an incremental, scheduled pipeline.",
        version=lambda: version("frostline"),
        suppress_keyboard_interrupt=False,
        config=(Env("FROSTLINE_", command=False), file),
    )
    for number, (title, group_commands) in enumerate(GROUPS.items()):
        group = cyclopts.Group(title, sort_key=number)
        for command in group_commands:
            name = command.__name__
            formatter, epilogue = (None, None) if full_help else (ShortHelp(name), describe_rest(name))
            app.command(command, group=group, help_formatter=formatter, help_epilogue=epilogue)
    return app


def run_command(arguments: Sequence[str]) -> None:
    """Run one command; what a user can fix ends with one line on stderr and exit code 2."""
    try:
        tokens, full_help = want_all(arguments)
        app = build_app(tokens, full_help=full_help)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except FrostlineError as error:
        _exit_with_error(str(error), USER_ERROR)
    except cyclopts.CycloptsError as error:
        _exit_with_error(_explain(error), USER_ERROR)
    except Exception as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        if "--debug" in arguments:
            raise
        refused = find_os_error(error, "disk")
        if refused:
            _exit_with_error(str(refused), USER_ERROR)
        message = f"unexpected {type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
        _exit_with_error(f"{message}. Run again with --debug for a traceback", UNEXPECTED_ERROR)


def _find_config(arguments: Sequence[str]) -> Path | None:
    """Find --config before cyclopts parses the rest, which depends on that file."""
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
    return None


def _explain(error: cyclopts.CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError) and not isinstance(error, cyclopts.MissingArgumentError):
        first = cause.errors()[0]
        setting = ".".join(map(str, first["loc"])) or "settings"
        rule = first["msg"].removeprefix("Value error, ")
        return str(SettingsError(f"{setting} {first['input']!r}", rule, "See `frostline run --help-all`"))
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return str(SettingsError(shlex.join(error.unused_tokens or ()), "is not an argument", LIST_HINT))
    return f"{' '.join(str(error).split())} See `frostline --help`."


def _exit_with_error(message: str, code: int) -> None:
    print(f"frostline: {escape_terminal(mask(message))}", file=sys.stderr)  # noqa: T201 - the command line's error message
    sys.exit(code)

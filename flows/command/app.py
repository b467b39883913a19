"""The command line."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import cyclopts
import pydantic
from cyclopts import App
from cyclopts.config import Dict, Env

from flows.command.config import check_environment, read_config
from flows.command.lake_commands import diff, doctor, erase, export, lineage, maintain, move, sql, status, tag
from flows.command.run_commands import cuts, demo, evaluate, plan, review, run, train
from flows.reports.output import Output
from flows.settings import read_environment
from storage.errors import FrostlineError, SettingsError
from storage.locations.urls import mask

BAD_USE = 2
REPEAT = "Name a list's flag before each value: --train.heads softmax --train.heads ridge"
QUERY_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of Ctrl-C."""


def build_app(arguments: Sequence[str]) -> App:
    """Build the command line, with the settings file that the arguments name.

    Raises:
        SettingsError: where the file or the environment has a setting that there is not.
    """
    values = read_config(_find_config(arguments))
    check_environment(read_environment(), [field.name for field in dataclasses.fields(Output)] + ["at"])
    runs = (demo, run, plan, cuts, train, evaluate, review)
    commands = (*runs, sql, status, lineage, export, tag, diff, maintain, erase, doctor, move)
    # Below each command's name, as cyclopts takes a table [train] beside a command `train` to be that command's.
    file = Dict({command.__name__: values for command in commands}, allow_unknown=True, source="frostline.toml")
    app = App(
        name="frostline",
        help="Transfer learning as an incremental, scheduled pipeline.",
        suppress_keyboard_interrupt=False,
        config=(Env("FROSTLINE_", command=False), file),
    )
    for command in commands:
        app.command(command)
    return app


def obey(arguments: Sequence[str]) -> None:
    """Do what the arguments say: exit code 2 and one line where the user can mend it."""
    try:
        build_app(arguments)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except FrostlineError as error:
        _fail(str(error), BAD_USE)
    except cyclopts.CycloptsError as error:
        _fail(_explain(error), BAD_USE)
    except Exception as error:
        if str(error) == QUERY_INTERRUPTED:
            raise KeyboardInterrupt from error
        if "--debug" in arguments:
            raise
        _fail(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}. Run with --debug to see where", 1)


def _find_config(arguments: Sequence[str]) -> Path | None:
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
        where = ".".join(map(str, first["loc"])) or "settings"
        rule = first["msg"].removeprefix("Value error, ")
        return str(SettingsError(f"{where} {first['input']!r}", rule, "See `frostline run --help`"))
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return str(SettingsError(f"{shlex.join(error.unused_tokens or ())}", "belongs to no argument", REPEAT))
    return f"{' '.join(str(error).split())} See `frostline --help`."


def _fail(message: str, code: int) -> None:
    print(f"frostline: {mask(message)}", file=sys.stderr)  # noqa: T201 - this is the terminal
    sys.exit(code)

"""The command line."""

import contextlib
import dataclasses
import json as json_text
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import pydantic
from cyclopts import App, Parameter
from cyclopts.config import Dict, Env

from flows.config import check_environment, read_config
from flows.settings import RunSettings, quiet_prefect, read_environment
from storage.errors import FrostlineError, OrchestratorError, SettingsError

HOME = Path(".frostline")
BAD_USE, INTERRUPTED = 2, 130
INTERRUPT = "interrupted. What was committed stays; run again to go on"
PATIENCE = 5.0


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command answers."""

    json: bool = False
    """Print one JSON object on stdout; everything else goes to stderr."""
    config: Path | None = None
    """A file of settings; by default frostline.toml where there is one."""
    debug: bool = False
    """Show tracebacks and Prefect's log."""


Settings = Annotated[RunSettings, Parameter(name="*")]


def run(source: Path | None = None, /, *, settings: Settings = RunSettings(), out: Output = Output()) -> None:  # noqa: B008 - frozen
    """Ingest a folder, embed what is missing, train where anything changed, register what is new.

    Args:
        source: The folder: one folder in it for each class.
        settings: What a run is told.
        out: How the command answers.
    """
    settings = _with_source(settings, source)
    _refuse_early(settings)
    quiet_prefect(debug=out.debug)
    from flows.pipeline import pipeline
    from flows.report import describe

    with _orchestrated():
        report = pipeline(settings)
    _answer(out, report.to_json(), lambda: describe(report))


def plan(source: Path | None = None, /, *, settings: Settings = RunSettings(), out: Output = Output()) -> None:  # noqa: B008 - frozen
    """Show what a run would compute, why, how long and how much disk; writes nothing.

    Args:
        source: The folder: one folder in it for each class.
        settings: What a run is told.
        out: How the command answers.
    """
    from flows.plan import describe_plan, make_plan

    made = make_plan(_with_source(settings, source))
    _answer(out, made.to_json(), lambda: describe_plan(made))


def sql(query: str, /, *, at: int | None = None, home: Path = HOME, out: Output = Output()) -> None:
    """Query the lake; it cannot be changed this way.

    Args:
        query: In DuckDB's SQL, such as "from labels".
        at: A snapshot, to see the lake as it was.
        home: Where the lake lies.
        out: How the command answers.
    """
    from storage.lake import read_lake
    from storage.paths import open_home

    with read_lake(open_home(home), at) as lake:
        columns, rows = lake.read(query)
    _answer(out, {"columns": columns, "rows": rows}, lambda: _table(columns, rows))


def status(*, home: Path = HOME, out: Output = Output()) -> None:
    """Count what the lake holds: sources, images, recipes, features, failures, models; name the snapshot.

    Args:
        home: Where the lake lies.
        out: How the command answers.
    """
    from storage.lake import read_lake
    from storage.paths import open_home
    from storage.summary import summarize

    with read_lake(open_home(home)) as lake:
        found = summarize(lake)
    _answer(out, found, lambda: _tables(found))


def demo(*, home: Path = HOME, out: Output = Output()) -> None:
    """Run the pipeline three times over scanned digits that need no download.

    Args:
        home: Where the demo's own home is made, as its folder "demo"; what lies there is replaced.
        out: How the command answers.
    """
    quiet_prefect(debug=out.debug)
    from flows.demo import run_demo

    with _orchestrated():
        reports = [report.to_json() for report in run_demo(home)]
    _answer(out, {"runs": reports}, list)


def build_app(arguments: Sequence[str]) -> App:
    """Build the command line, with the settings file that the arguments name.

    Raises:
        SettingsError: where the file or the environment has a setting that there is not.
    """
    values = read_config(_find_config(arguments))
    check_environment(read_environment(), [field.name for field in dataclasses.fields(Output)] + ["at"])
    file = Dict(values, use_commands_as_keys=False, allow_unknown=True, source="frostline.toml")
    app = App(
        name="frostline",
        help="Transfer learning as an incremental, scheduled pipeline.",
        suppress_keyboard_interrupt=False,
        config=(Env("FROSTLINE_", command=False), file),
    )
    for command in (demo, run, plan, sql, status):
        app.command(command)
    return app


def main() -> None:
    """Run the command line: exit code 2 and one line where the user can mend it."""
    arguments = sys.argv[1:]
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGINT, _interrupt)
    try:
        build_app(arguments)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except FrostlineError as error:
        _fail(str(error), BAD_USE)
    except cyclopts.CycloptsError as error:
        _fail(_explain(error), BAD_USE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _fail(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}. Run with --debug to see where", 1)


@contextlib.contextmanager
def _orchestrated() -> Iterator[None]:
    """Run flows under Prefect; where no server is named, under a private one that ends with this process.

    Raises:
        OrchestratorError: where the server that is named does not answer.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Nobody watches a private server's heartbeat, and stopping it holds each flow up for a second.
    heartbeat = {} if PREFECT_API_URL.value() else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    try:
        with temporary_settings(heartbeat):
            yield
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        remedy = "Start it with `prefect server start`, or unset PREFECT_API_URL for a private one"
        raise OrchestratorError("Prefect", str(error), remedy) from error


def _interrupt(*_: object) -> None:
    """Stop in order, but soon: Ctrl-C also ends a private server, which Prefect then tries to reach for minutes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"frostline: {INTERRUPT}", file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal
    timer = threading.Timer(PATIENCE, _give_up)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    os._exit(INTERRUPTED)


def _with_source(settings: RunSettings, source: Path | None) -> RunSettings:
    return settings.model_copy(update={"source": source}) if source else settings


def _refuse_early(settings: RunSettings) -> None:
    """Refuse what needs no Prefect to refuse."""
    from storage.paths import open_home
    from tasks.ingest.folder import check_folder

    check_folder(settings.root)
    settings.title  # noqa: B018 - raises where no part could bear the name
    open_home(settings.home).check()


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
        return str(SettingsError(f"{where} {first['input']!r}", first["msg"], "See `frostline run --help`"))
    return f"{' '.join(str(error).split())} See `frostline --help`."


def _fail(message: str, code: int) -> None:
    print(f"frostline: {message}", file=sys.stderr)  # noqa: T201 - this is the terminal
    sys.exit(code)


def _answer(out: Output, value: dict[str, Any], tell: Callable[[], Sequence[Any]]) -> None:
    if out.json:
        print(json_text.dumps(value, default=str, ensure_ascii=False))  # noqa: T201 - this is the answer
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in tell():
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> list[Any]:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return [table]


def _tables(found: dict[str, Any]) -> list[Any]:
    lines: list[Any] = [f"{name:9} {value}" for name, value in found.items() if not isinstance(value, list)]
    for name, rows in found.items():
        if isinstance(rows, list) and rows:
            lines += _table(list(rows[0]), [list(row.values()) for row in rows], title=name)
    return lines


if __name__ == "__main__":
    main()

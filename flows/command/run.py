"""The commands that run the pipeline, or show what a run would do."""

import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.command.options import RunOptions, check_settings, set_source
from flows.operations.settled import find_idle_report
from flows.orchestrator.server import explain_server_errors
from flows.reports.output import OutputOptions, print_result
from flows.reports.run_lines import describe_run
from flows.reports.saved import open_report
from flows.settings import HOME, RunSettings, configure_prefect
from tasks.step_task import is_orchestrated

REFUSED = 2
"""Exit code of a plan that a run would refuse, as the run's own."""


def demo(*, home: Path = HOME, output: OutputOptions = OutputOptions()) -> None:
    """Run the pipeline three times on scanned digits that need no download.

    Args:
        home: Where to create the demo's own home, a folder named "demo"; an earlier one is replaced.
    """
    configure_prefect(debug=output.debug)
    from flows.demo import run_demo

    with explain_server_errors():
        reports = [report.to_json() for report in run_demo(home)]
    print_result(output, {"runs": reports}, list)


def run(
    source: Path | None = None, /, *, settings: RunOptions = RunSettings(), output: OutputOptions = OutputOptions()
) -> None:
    """Read a folder of images, embed what is missing, train if anything changed, register the model.

    Args:
        source: The folder of images, with one subfolder per class.
    """
    settings = set_source(settings, source)
    _check_before_prefect(settings)
    configure_prefect(debug=output.debug)
    report = _look(settings) or _run(settings)
    print_result(output, report, lambda: describe_run(report))


def plan(
    source: Path | None = None, /, *, settings: RunOptions = RunSettings(), output: OutputOptions = OutputOptions()
) -> None:
    """Show what a run would compute and why, its time and disk space, what it would skip and refuse. Writes nothing.

    Args:
        source: The folder of images, with one subfolder per class.
    """
    from flows.operations.plan import describe_plan, make_plan

    made = make_plan(set_source(settings, source))
    print_result(output, made.to_json(), lambda: describe_plan(made))
    if made.refusals:
        sys.exit(REFUSED)


def _look(settings: RunSettings) -> dict[str, Any] | None:
    """Return the report of a run with nothing to do, and keep it in the home; None if it must run to find out.

    Where a server is named, every run is a flow run.
    """
    if is_orchestrated():
        return None
    started = datetime.now(UTC)
    report = find_idle_report(settings)
    if report:
        with open_report(settings.resolved_home, started, str(uuid.uuid4())) as save:
            save(report)
    return report


def _run(settings: RunSettings) -> dict[str, Any]:
    from flows.pipeline import pipeline

    with explain_server_errors():
        return pipeline(settings).to_json()


def _check_before_prefect(settings: RunSettings) -> None:
    """Refuse what can be refused at once: importing Prefect, torch and MLflow takes seconds."""
    from tasks.ingest.sources.folder import check_folder

    check_folder(settings.source_path)
    check_settings(settings)
    settings.resolved_home.check()

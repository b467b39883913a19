"""The commands that run the pipeline, or say what a run would do."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.orchestrator.server import orchestrate, start_server
from flows.reports.output import Output, answer, table
from flows.settings import HOME, RunSettings, quiet_prefect

CUT_COLUMNS = ("cut", "shape", "bytes", "averaged", "forward saved", "parameters left")
Settings = Annotated[RunSettings, Parameter(name="*")]


def run(source: Path | None = None, /, *, settings: Settings = RunSettings(), out: Output = Output()) -> None:
    """Ingest a folder, embed what is missing, train where anything changed, register what is new.

    Args:
        source: The folder: one folder in it for each class.
    """
    settings = _with_source(settings, source)
    _refuse_early(settings)
    quiet_prefect(debug=out.debug)
    private = start_server()
    from flows.orchestrator.warm_up import warm_up
    from flows.pipeline import pipeline
    from flows.reports.run_report import describe

    with warm_up(settings) if private else nullcontext(), orchestrate(private):  # where one runs, nothing is waited for
        report = pipeline(settings)
    answer(out, report.to_json(), lambda: describe(report))


def plan(source: Path | None = None, /, *, settings: Settings = RunSettings(), out: Output = Output()) -> None:
    """Show what a run would compute, why, how long and how much disk; writes nothing.

    Args:
        source: The folder: one folder in it for each class.
    """
    from flows.operations.plan import describe_plan, make_plan

    made = make_plan(_with_source(settings, source))
    answer(out, made.to_json(), lambda: describe_plan(made))


def cuts(backbone: str | None = None, /, *, settings: Settings = RunSettings(), out: Output = Output()) -> None:
    """List where a backbone can be cut: what a feature takes, what freezing saves, what is left to train.

    Args:
        backbone: The network, as --embed.backbone names it; needs none of its weights.
    """
    from tasks.encoder.backbone.cuts import list_cuts

    chosen = settings.embed.model_copy(update={"backbone": backbone} if backbone else {})
    found = list_cuts(*chosen.network)
    value = {"backbone": chosen.backbone, "stored": chosen.stored, "cuts": [cut.to_json() for cut in found]}
    answer(out, value, lambda: table(CUT_COLUMNS, [cut.to_row() for cut in found]))


def train(
    source: Path | None = None,
    /,
    *,
    at: str | None = None,
    cut: Literal["auto"] | None = None,
    settings: Settings = RunSettings(),
    out: Output = Output(),
) -> None:
    """Train a head on what the lake holds, and do nothing else.

    Args:
        source: The folder whose labels are learned; or name it by --name alone.
        at: A snapshot's number or tag, to train on the lake as it was.
        cut: 'auto' searches how deep to freeze within search.minutes and search.bytes, embedding at other cuts, too.
    """
    settings = _with_source(settings, source)
    settings.source_name  # noqa: B018 - refuses a name that no source can have
    settings.check()
    quiet_prefect(debug=out.debug)
    if cut:
        _search(settings, at, out)
        return
    private = start_server()
    from flows.reports.run_report import describe_trained, trained_to_json
    from flows.train import train as train_flow

    with orchestrate(private):
        trained = train_flow(settings, at)
    answer(out, trained_to_json(trained), lambda: describe_trained(trained))


def evaluate(
    source: Path | None = None,
    version: int | None = None,
    /,
    *,
    html: Path | None = None,
    settings: Settings = RunSettings(),
    out: Output = Output(),
) -> None:
    """Show what a head is worth on test images: figures with intervals, classes, worst slices, surest mistakes.

    Args:
        source: The folder whose labels were learned; or name it by --name alone.
        version: Of the registered model; by default the head that was trained last.
        html: A file to write it into as one page, with pictures and the mistakes' thumbnails.
    """
    from flows.operations.evaluate import describe, evaluate_head, write_html

    settings = _with_source(settings, source)
    found = evaluate_head(settings.resolved_home, settings.label_set, settings.model_name, version)
    if html:
        write_html(settings.resolved_home, found["training"], html)
    answer(out, found, lambda: describe(found))


def review(
    source: Path | None = None,
    /,
    *,
    folder: Path = Path("review"),
    apply: Path | None = None,
    settings: Settings = RunSettings(),
    out: Output = Output(),
) -> None:
    """Write down which labels a person should look at; --apply takes decisions back. Changes nothing by itself.

    Args:
        source: The folder whose labels are looked at; or name it by --name alone.
        folder: Where to write the table of suspects and the contact sheet.
        apply: A table in which somebody wrote decisions: they become the images' labels.
    """
    from flows.operations.review import apply_decisions, describe
    from flows.operations.review import review as look_for

    settings = _with_source(settings, source)
    home, label_set = settings.resolved_home, settings.label_set
    found = apply_decisions(home, label_set, apply) if apply else look_for(home, label_set, folder)
    answer(out, found, lambda: describe(found))


def demo(*, home: Path = HOME, out: Output = Output()) -> None:
    """Run the pipeline three times over scanned digits that need no download.

    Args:
        home: Where the demo's own home is made, as its folder "demo"; what lies there is replaced.
    """
    quiet_prefect(debug=out.debug)
    private = start_server()
    from flows.demo import run_demo

    with orchestrate(private):
        reports = [report.to_json() for report in run_demo(home)]
    answer(out, {"runs": reports}, list)


def _search(settings: RunSettings, at: str | None, out: Output) -> None:
    from flows.reports.search_report import describe_search, search_to_json
    from flows.search import check_searchable, search

    check_searchable(settings, at)
    with orchestrate(start_server()):
        found = search(settings)
    answer(out, search_to_json(found), lambda: describe_search(found))


def _with_source(settings: RunSettings, source: Path | None) -> RunSettings:
    return settings.model_copy(update={"source": source}) if source else settings


def _refuse_early(settings: RunSettings) -> None:
    """Refuse what needs no Prefect to refuse."""
    from tasks.ingest.sources.folder import check_folder

    check_folder(settings.root)
    settings.source_name  # noqa: B018 - refuses a name that no source can have
    settings.check()
    settings.resolved_home.check()

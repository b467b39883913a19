"""The commands that train a head, measure it, and review the labels it was trained on."""

from pathlib import Path
from typing import Literal

from flows.command.options import RunOptions, check_settings, set_source
from flows.orchestrator.server import explain_server_errors
from flows.reports.output import OutputOptions, build_table, print_result
from flows.settings import RunSettings, configure_prefect
from storage.lake.attach import read_existing_lake

CUT_COLUMNS = ("cut", "shape", "bytes", "averaged", "forward saved", "parameters left")


def cuts(
    backbone: str | None = None, /, *, settings: RunOptions = RunSettings(), output: OutputOptions = OutputOptions()
) -> None:
    """List where a backbone can be cut: the size of a feature, what freezing saves, what is left to train.

    Args:
        backbone: The network, named as in --embed.backbone. Its weights are not needed.
    """
    from tasks.encoder.backbone.cuts import list_cuts

    embed = settings.embed.model_copy(update={"backbone": backbone} if backbone else {})
    rows = list_cuts(*embed.network)
    value = {"backbone": embed.backbone, "stored": embed.stored, "cuts": [row.to_json() for row in rows]}
    print_result(output, value, lambda: build_table(CUT_COLUMNS, [row.to_row() for row in rows]))


def train(
    source: Path | None = None,
    /,
    *,
    at: str | None = None,
    cut: Literal["auto"] | None = None,
    settings: RunOptions = RunSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Train a head on the features in the lake, and nothing else.

    Args:
        source: The folder whose labels to learn; --name alone also works.
        at: A snapshot's number or tag, to train on the lake as it was.
        cut: 'auto' searches how deep to freeze, within search.minutes and search.bytes; it embeds at other cuts, too.
    """
    settings = set_source(settings, source)
    check_settings(settings)
    configure_prefect(debug=output.debug)
    if cut:
        _search(settings, at, output)
    else:
        _train(settings, at, output)


def evaluate(
    source: Path | None = None,
    version: int | None = None,
    /,
    *,
    html: Path | None = None,
    settings: RunOptions = RunSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Show how good a head is on test images: metrics with intervals, classes, worst slices, worst mistakes.

    Args:
        source: The folder whose labels were learned; --name alone also works.
        version: The version of the registered model; by default the head that was trained last.
        html: A file to write the same to, as one page with plots and thumbnails of the mistakes.
    """
    from flows.operations.evaluate import describe, evaluate_head, write_html

    settings = set_source(settings, source)
    evaluation = evaluate_head(settings.resolved_home, settings.label_set, settings.model_name, version)
    if html:
        write_html(settings.resolved_home, evaluation["training"], html)
    print_result(output, evaluation, lambda: describe(evaluation))


def review(
    source: Path | None = None,
    /,
    *,
    folder: Path = Path("review"),
    apply: Path | None = None,
    settings: RunOptions = RunSettings(),
    output: OutputOptions = OutputOptions(),
) -> None:
    """List the labels that a person should check; --apply reads the decisions back. Changes no label by itself.

    Args:
        source: The folder whose labels to review; --name alone also works.
        folder: Where to write the table of suspects and the contact sheet.
        apply: A table with decisions that somebody filled in: they become the images' labels.
    """
    from flows.operations import review as operation

    settings = set_source(settings, source)
    home, label_set = settings.resolved_home, settings.label_set
    result = operation.apply_decisions(home, label_set, apply) if apply else operation.review(home, label_set, folder)
    print_result(output, result, lambda: operation.describe(result))


def _train(settings: RunSettings, at: str | None, output: OutputOptions) -> None:
    with read_existing_lake(settings.resolved_home):
        pass  # a run must not create the home that a typo names
    from flows.reports.run_lines import describe_trained
    from flows.reports.run_report import trained_to_json
    from flows.train import train as train_flow

    with explain_server_errors():
        trained = trained_to_json(train_flow(settings, at))
    print_result(output, trained, lambda: describe_trained(trained))


def _search(settings: RunSettings, at: str | None, output: OutputOptions) -> None:
    from flows.reports.search_report import describe_search, search_to_json
    from flows.search import check_searchable, search

    check_searchable(settings, at)
    with explain_server_errors():
        result = search(settings)
    print_result(output, search_to_json(result), lambda: describe_search(result))

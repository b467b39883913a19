"""The pipeline: from a folder of labelled images to a registered model."""

import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from flows.embed import embed
from flows.ingest import ingest
from flows.operations.settled import remember
from flows.orchestrator.flow import flow
from flows.register import register
from flows.reports.draft import RunDraft, drafting
from flows.reports.run_lines import lines_to_markdown
from flows.reports.run_report import RunReport, to_markdown
from flows.reports.saved import Save, open_report, survive_full_disk
from flows.reports.unfinished import UnfinishedReport, classify_error, explain_error
from flows.score import Scored, score
from flows.settings import RunSettings
from flows.train import train
from storage.errors import explain_os_errors
from storage.lake.attach import read_lake
from storage.lake.lake import keep_lake_attached
from storage.locations.stamps import stamp_files
from storage.tables.trainings import count_conflicts, evaluation_path, head_path
from tasks.embed.find_recipe import ResolvedRecipe
from tasks.embed.step import resolve_recipes
from tasks.encoder.backbone.weights import digest_file
from tasks.register.register import RegisteredVersion
from tasks.step_task import is_orchestrated

logger = logging.getLogger(__name__)


@flow("pipeline {settings.source}", explain_errors=True)
def pipeline(settings: RunSettings) -> RunReport:
    """Ingest, embed what is missing, train where anything changed, register what is new, predict every image."""
    draft = RunDraft(settings.source_name)
    with _leave_report(settings, draft) as save, keep_lake_attached(settings.resolved_home):
        report = _run(settings, draft)
        save(report.to_json())
        _create_artifact(settings, to_markdown(report))
    return report


def _run(settings: RunSettings, draft: RunDraft) -> RunReport:
    settings.check()
    with draft.time("resolve"):
        recipes = resolve_recipes(settings.resolved_home, settings.embed)  # fails before anything is written
    with draft.time("ingest"):
        draft.seen = ingest(settings, for_training=True, recipes=recipes)
    with draft.time("embed"):
        embedded = embed(settings, recipes)
    snapshot, conflicts = _read_snapshot(settings)
    with draft.time("train"):
        draft.trained = train(settings, snapshot, (embedded.recipe_id, *embedded.view_recipe_ids))
    with draft.time("register"):
        registered = register(settings, draft.trained.training.training_id)
    scored = _score(settings, registered, draft)
    report = RunReport(
        settings.source_name,
        snapshot,
        conflicts,
        draft.seen,
        embedded,
        draft.trained,
        registered,
        scored,
        draft.seconds,
    )
    _remember(settings, recipes, report)
    return report


def _remember(settings: RunSettings, recipes: Sequence[ResolvedRecipe], report: RunReport) -> None:
    """Remember that there is nothing left to do, unless a server keeps the registry or the champion lacks features."""
    weights = {recipe.weights.path: recipe.weights.digest for recipe in recipes}
    stamps = stamp_files(weights)
    if (
        report.registered.registry is None
        or report.scored
        or any(digest_file(path) != expected for path, expected in weights.items())
    ):
        return
    home, training_id = settings.resolved_home, report.trained.training.training_id
    used = (report.embedded.recipe_id, *report.embedded.view_recipe_ids)
    packed = [home.backbones / recipe_id for recipe_id in used]
    files = stamp_files([*packed, head_path(home, training_id), evaluation_path(home, training_id)])
    with survive_full_disk():
        remember(settings, {**stamps, **files, **report.registered.registry}, report.to_json(), used)


def _score(settings: RunSettings, registered: RegisteredVersion, draft: RunDraft) -> Scored | None:
    """Let the champion predict the images that it could not; usually there are none, and the result is None."""
    if registered.gap is None:
        return None
    with draft.time("score"):
        return score(settings, registered.gap)


@contextmanager
def _leave_report(settings: RunSettings, draft: RunDraft) -> Iterator[Save]:
    """Save the draft as the run goes on, and a report if it ends early, of which the error's note is one line.

    Raises:
        OperatingSystemError: if the system refuses something within the block, such as space on the disk.
    """
    home = settings.resolved_home
    with open_report(home, datetime.now(UTC), _name_run()) as save:
        draft.on_step = lambda: save(UnfinishedReport(draft, "running").to_json())
        try:
            with drafting(draft), explain_os_errors(f"home {home.root}"):
                yield save
        except BaseException as error:
            report = UnfinishedReport(draft, classify_error(error), explain_error(error))
            error.add_note(report.line)
            save(report.to_json())
            _try_artifact(settings, lines_to_markdown(draft.name, report.describe()))
            raise


def _name_run() -> str:
    """Return the id of the flow run; of a run without Prefect, a new one."""
    if not is_orchestrated():
        return str(uuid.uuid4())
    from prefect.runtime import flow_run

    return str(flow_run.id)


def _try_artifact(settings: RunSettings, text: str) -> None:
    """Create the artifact of a run that ends early; the server may be the reason why it does."""
    try:
        _create_artifact(settings, text)
    except Exception as error:  # noqa: BLE001 - it must not hide the reason
        logger.warning("the report of this run cannot be sent to Prefect: %s", error)


def _create_artifact(settings: RunSettings, text: str) -> None:
    """Create the artifact of a run that Prefect watches; each run's report is in the home."""
    if not is_orchestrated():
        return
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=_artifact_key(settings.source_name), description="What the run did")


def _read_snapshot(settings: RunSettings) -> tuple[int, int]:
    """Return the snapshot to train on, and the number of images with conflicting labels."""
    with read_lake(settings.resolved_home) as lake:
        return lake.snapshot, 0 if settings.train.multi_label else count_conflicts(lake, settings.label_set)


def _artifact_key(name: str) -> str:
    return "frostline-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

"""The pipeline: from a folder of labelled images to a registered model."""

import re

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.embed import embed
from flows.ingest import ingest
from flows.register import register
from flows.reports.run_report import RunReport, Stopwatch, to_markdown
from flows.settings import RunSettings
from flows.train import train
from storage.lake.attach import read_lake
from storage.tables.trainings import count_conflicts
from tasks.embed.step import resolve_recipes


@flow(flow_run_name="pipeline {settings.source}", persist_result=False)
def pipeline(settings: RunSettings) -> RunReport:
    """Ingest, embed what is missing, train where anything changed, register what is new."""
    settings.check()
    watch = Stopwatch()
    with watch.time("total"):
        with watch.time("resolve"):
            recipes = resolve_recipes(settings.resolved_home, settings.embed)  # fails before anything is written
        with watch.time("ingest"):
            seen = ingest(settings, for_training=True)
        with watch.time("embed"):
            embedded = embed(settings, recipes)
        snapshot, conflicts = _read_snapshot(settings)
        recipe_ids = (embedded.recipe_id, *embedded.view_recipe_ids)
        with watch.time("train"):
            trained = train(settings, snapshot, recipe_ids)
        with watch.time("register"):
            registered = register(settings, trained.training.training_id)
    report = RunReport(settings.source_name, snapshot, conflicts, seen, embedded, trained, registered, watch.seconds)
    create_markdown_artifact(
        to_markdown(report), key=_artifact_key(settings.source_name), description="What the run did"
    )
    return report


def _read_snapshot(settings: RunSettings) -> tuple[int, int]:
    """Return the snapshot to train on, and the number of images with conflicting labels."""
    with read_lake(settings.resolved_home) as lake:
        return lake.snapshot, 0 if settings.train.multi_label else count_conflicts(lake, settings.label_set)


def _artifact_key(name: str) -> str:
    return "frostline-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

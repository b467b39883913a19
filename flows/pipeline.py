"""The pipeline: a folder of labelled images goes in, a registered model comes out."""

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
from tasks.embed.step import resolve_recipe


@flow(flow_run_name="pipeline {settings.source}", persist_result=False)
def pipeline(settings: RunSettings) -> RunReport:
    """Ingest, embed what is missing, train where anything changed, register what is new."""
    settings.check()
    watch = Stopwatch()
    with watch.time("total"):
        with watch.time("resolve"):
            resolve_recipe(
                settings.resolved_home, settings.embed
            )  # refuses what cannot be embedded before anything is written
        with watch.time("ingest"):
            seen = ingest(settings, for_training=True)
        with watch.time("embed"):
            embedded = embed(settings)
        snapshot, conflicts = _look(settings)
        with watch.time("train"):
            trained = train(settings, at=snapshot)
        with watch.time("register"):
            registered = register(settings, trained.training.training_id)
    report = RunReport(settings.source_name, snapshot, conflicts, seen, embedded, trained, registered, watch.seconds)
    create_markdown_artifact(
        to_markdown(report), key=_artifact_key(settings.source_name), description="What the run did"
    )
    return report


def _look(settings: RunSettings) -> tuple[int, int]:
    """Read the snapshot that the training pins, and the conflicts in it."""
    with read_lake(settings.resolved_home) as lake:
        return lake.snapshot, 0 if settings.train.multi_label else count_conflicts(lake, settings.label_set)


def _artifact_key(name: str) -> str:
    return "frostline-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

"""The train step's tasks."""

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.locations.home import Home
from storage.progress import Progress
from tasks.train.search import trials
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, train_head

read_rows = task(task_run_name="read {data.label_set}", cache_policy=NO_CACHE, persist_result=False)(trials.read_rows)
try_head = task(task_run_name="try {contender}", cache_policy=NO_CACHE, persist_result=False)(trials.try_head)
try_tail = task(task_run_name="try a tail at {cut}", cache_policy=NO_CACHE, persist_result=False)(trials.try_tail)


@task(task_run_name="train {data.label_set}", cache_policy=NO_CACHE, persist_result=False)
def fit_and_evaluate(home: Home, data: TrainingData, settings: TrainSettings, progress: Progress) -> Trained:
    """Train a head on the labelled features of a snapshot, or find the one that they gave before."""
    return train_head(home, data, settings, datetime.now(UTC), progress)


@task(task_run_name="estimate a tail at {cut}", cache_policy=NO_CACHE, persist_result=False)
def estimate_tail(home: Home, rows: trials.Rows, cut: str, settings: TrainSettings) -> float:  # noqa: ARG001 - names the task run
    """Estimate the seconds that a tail takes."""
    return trials.estimate_tail(home, rows, settings)

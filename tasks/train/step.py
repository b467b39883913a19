"""The train step's tasks."""

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.paths import Home
from storage.progress import Progress
from tasks.train import trials
from tasks.train.halving import Contender, Trial
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, train_head
from tasks.train.trials import Rows


@task(task_run_name="train {data.label_set}", cache_policy=NO_CACHE, persist_result=False)
def fit_and_evaluate(
    home: Home, data: TrainingData, settings: TrainSettings, opener: str, progress: Progress
) -> Trained:
    """Train a head on the labelled features of a snapshot, or find the one that they gave before."""
    return train_head(home, data, settings, datetime.now(UTC), opener, progress)


@task(task_run_name="read {data.label_set}", cache_policy=NO_CACHE, persist_result=False)
def read_rows(home: Home, data: TrainingData, settings: TrainSettings) -> Rows:
    """Read what trials under one recipe are made on."""
    return trials.read_rows(home, data, settings)


@task(task_run_name="try {contender}", cache_policy=NO_CACHE, persist_result=False)
def try_head(rows: Rows, contender: Contender, share: float, settings: TrainSettings) -> Trial:
    """Train a head on a share of the labels, and ask it about the validation images."""
    return trials.try_head(rows, contender, share, settings)


@task(task_run_name="estimate a tail at {cut}", cache_policy=NO_CACHE, persist_result=False)
def estimate_tail(home: Home, rows: Rows, cut: str, settings: TrainSettings, opener: str) -> float:  # noqa: ARG001 - names the task run
    """Estimate the seconds that a tail takes."""
    return trials.estimate_tail(home, rows, settings, opener)


@task(task_run_name="try a tail at {cut}", cache_policy=NO_CACHE, persist_result=False)
def try_tail(
    home: Home, rows: Rows, cut: str, settings: TrainSettings, opener: str, progress: Progress, deadline: float
) -> Trial | str:
    """Train a tail on all labels, and ask it about the validation images; in words why it was ended before."""
    return trials.try_tail(home, rows, cut, settings, opener, progress, deadline)

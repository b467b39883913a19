"""The train step's tasks."""

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.paths import Home
from storage.progress import Progress
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, train_head


@task(task_run_name="train {label_set}", cache_policy=NO_CACHE, persist_result=False)
def fit_and_evaluate(
    home: Home, label_set: str, recipe_id: str, settings: TrainSettings, opener: str, progress: Progress, at: int | None
) -> Trained:
    """Train a head on the labelled features of a snapshot, or find the one that they gave before."""
    return train_head(home, label_set, recipe_id, settings, datetime.now(UTC), at, opener, progress)

"""The train step's tasks."""

from datetime import UTC, datetime

from storage.locations.home import Home
from storage.progress import Progress
from tasks.step_task import step_task
from tasks.train.search import trials
from tasks.train.search.halving import Contender, Trial
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, train_head


@step_task("train {data.label_set}")
def fit_and_evaluate(home: Home, data: TrainingData, settings: TrainSettings, progress: Progress) -> Trained:
    """Train a head on the labelled features of a snapshot, or find the head that the same training gave before."""
    return train_head(home, data, settings, datetime.now(UTC), progress)


@step_task("read {data.label_set}")
def read_search_data(home: Home, data: TrainingData, settings: TrainSettings) -> trials.SearchData:
    """Read the training and validation images of a search."""
    return trials.read_search_data(home, data, settings, datetime.now(UTC))


@step_task("try {contender}")
def try_head(search: trials.SearchData, contender: Contender, share: float, settings: TrainSettings) -> Trial:
    """Train a head on a share of the labels."""
    return trials.try_head(search, contender, share, settings)


@step_task("try a tail at {cut}")
def try_tail(
    home: Home, search: trials.SearchData, cut: str, settings: TrainSettings, progress: Progress, deadline: float
) -> Trial | str:
    """Train a tail on all labels; return the reason if it could not finish by the deadline."""
    return trials.try_tail(home, search, cut, settings, progress, deadline)


@step_task("estimate a tail at {cut}")
def estimate_tail(home: Home, search: trials.SearchData, cut: str, settings: TrainSettings) -> float:  # noqa: ARG001 - names the task run
    """Estimate the seconds that training a tail takes."""
    return trials.estimate_tail(home, search, settings)

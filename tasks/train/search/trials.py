"""Trials of a search: contenders are trained on a share of the labels and measured on validation images."""

import time
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.progress import Progress, silent
from storage.tables.features import read_features
from storage.tables.trainings import checkpoint_folder, find_training, head_path
from storage.vectors.feature_file import Matrix
from tasks.encoder.layers import open_layers
from tasks.heads.heads import Classifier
from tasks.heads.load import read_head
from tasks.train.fit.candidates import TailContext, fit_heads
from tasks.train.fit.examples import ClassNames
from tasks.train.measure.evaluate import log_loss
from tasks.train.measure.metrics import predict
from tasks.train.rows.assign import LabelledImages, SplitIdentity, place_images
from tasks.train.rows.groups import read_grouping_inputs
from tasks.train.search.budget import OutOfTimeError
from tasks.train.search.halving import Contender, Trial, take_subset
from tasks.train.settings import Kind, TrainSettings
from tasks.train.train import TrainingData, identify, split_rows

TIMED_IMAGES = 64
"""The number of images by which a forward pass is timed."""
PASSES_PER_STEP = 3
"""A training step costs as much as three forward passes: one forward, two backward."""


@dataclass(frozen=True)
class SplitData:
    """The images of one split: ids, class names [n], features [n, dim]."""

    image_ids: list[str]
    names: ClassNames
    features: Matrix


@dataclass(frozen=True)
class SearchData:
    """The images that trials under one recipe use, without test images; ``splits`` identifies their splits."""

    data: TrainingData
    splits: SplitIdentity
    train: SplitData
    validation: SplitData

    def count_classes(self) -> dict[str, int]:
        """Count the training images of each class."""
        names, counts = np.unique(self.train.names, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))


def read_search_data(home: Home, data: TrainingData, settings: TrainSettings, now: datetime) -> SearchData:
    """Read the training and validation images, split as they are for training.

    Raises:
        TrainError: if the labels are too few to train or measure a head.
    """
    with read_lake(home, data.at) as lake:
        grouping = read_grouping_inputs(lake, data.label_set, data.recipe_id, settings)
        images = LabelledImages(data.label_set, data.recipe_id, lake.snapshot if data.at is None else data.at)
        assignment = place_images(home, lake, images, settings, grouping, now, silent)
        rows, _ = split_rows(assignment, settings)
        parts = []
        for part in ("train", "validation"):
            chosen = [(image_id, name) for image_id, name, split in rows if split == part]
            ids, names = [image_id for image_id, _ in chosen], np.array([name for _, name in chosen])
            parts.append(SplitData(ids, names, read_features(lake, data.recipe_id, ids)))
    return SearchData(data, assignment.identity, *parts)


def select_kind(settings: TrainSettings, kind: Kind) -> TrainSettings:
    """Return settings that train one kind of head only."""
    return settings.model_copy(update={"heads": (kind,)})


def try_head(search: SearchData, contender: Contender, share: float, settings: TrainSettings) -> Trial:
    """Train a contender's candidates on a share of the labels, and measure the best of them."""
    began, train = time.perf_counter(), search.train
    positions = take_subset(list(zip(train.image_ids, train.names.tolist(), strict=True)), share, settings.seed)
    subset = train.features[positions], train.names[positions]
    validation = search.validation.features, search.validation.names
    head = fit_heads(subset, validation, select_kind(settings, contender.kind))[0].head
    return _make_trial(search, contender, share, len(positions), head, began)


def try_tail(
    home: Home, search: SearchData, cut: str, settings: TrainSettings, progress: Progress, deadline: float
) -> Trial | str:
    """Train a tail on all labels, or read it if the same training is recorded.

    Its checkpoints are stored where that training looks for them: it resumes from them and trains no epoch twice.

    Returns:
        The trial, or the reason if the tail could not be trained by the deadline.
    """
    began, settings = time.perf_counter(), select_kind(settings, "tail")
    with read_lake(home, search.data.at) as lake:
        training_id = identify(lake, search.data, settings, search.splits)
        recorded = find_training(lake, training_id)
    if recorded and head_path(home, training_id).exists():
        head, epoch = read_head(home, recorded, open_layers), int(recorded.hyperparameters["epoch"])
    else:
        checkpoints = checkpoint_folder(home, training_id)
        context = TailContext(home.backbones / search.data.recipe_id, checkpoints, progress, deadline)
        train, validation = ((part.features, part.names) for part in (search.train, search.validation))
        try:
            best = fit_heads(train, validation, settings, context)[0]
        except OutOfTimeError as error:
            return str(error)
        head, epoch = best.head, int(best.hyperparameters["epoch"])
    trial = _make_trial(search, Contender(cut, "tail"), 1.0, len(search.train.names), head, began)
    return replace(trial, epoch=epoch)


def estimate_tail(home: Home, search: SearchData, settings: TrainSettings) -> float:
    """Estimate the seconds that training a tail takes, from a forward pass over some images on the CPU."""
    layers = open_layers(home.backbones / search.data.recipe_id)
    some = search.train.features[:TIMED_IMAGES]
    layers.run(some[:1])  # the first pass allocates memory
    began = time.perf_counter()
    layers.run(some)
    forward = (time.perf_counter() - began) / max(len(some), 1)
    train, validation = len(search.train.names), len(search.validation.names)
    epochs = len(settings.tail.learning_rates) * settings.tail.epochs
    return forward * (epochs * (PASSES_PER_STEP * train + validation) + train + validation)


def _make_trial(
    search: SearchData, contender: Contender, share: float, images: int, head: Classifier, began: float
) -> Trial:
    validation = search.validation
    predictions = predict(head, validation.features, validation.names)
    correct = dict(zip(validation.image_ids, predictions.correct.tolist(), strict=True))
    loss = log_loss(predictions.probabilities, validation.names, head.classes)
    return Trial(contender, images, share, correct, loss, time.perf_counter() - began)

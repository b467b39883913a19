"""Trials: contenders of a search, trained on some of the labels and asked about the validation images alone."""

import time
from dataclasses import dataclass, replace

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
from tasks.train.fit.candidates import Pretrained, fit_heads
from tasks.train.fit.sample import Names
from tasks.train.measure.evaluate import log_loss
from tasks.train.measure.figures import ask
from tasks.train.rows.groups import read_arrivals
from tasks.train.rows.splits import divide
from tasks.train.search.budget import OutOfTimeError
from tasks.train.search.halving import Contender, Trial, take_share
from tasks.train.settings import Kind, TrainSettings
from tasks.train.train import TrainingData, identify, split_rows

PROBED = 64
"""Images by which a forward pass is timed."""
PASSES = 3
"""Forward passes that a step of training costs: one forward, two back."""


@dataclass(frozen=True)
class Part:
    """Images of one split: ids, class names [n], features [n, dim]."""

    image_ids: list[str]
    names: Names
    features: Matrix


@dataclass(frozen=True)
class Rows:
    """What trials under one recipe are made on; the test images stay unread. ``groups`` identify their groups."""

    data: TrainingData
    groups: str | None
    train: Part
    validation: Part

    def count_classes(self) -> dict[str, int]:
        """Count the images to train on of each class."""
        names, counts = np.unique(self.train.names, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))


def read_rows(home: Home, data: TrainingData, settings: TrainSettings) -> Rows:
    """Read the images to train on and to choose on, as a training would.

    Raises:
        TrainError: where the labels cannot train or measure a head.
    """
    with read_lake(home, data.at) as lake:
        arrivals = read_arrivals(lake, data.label_set, data.recipe_id, settings)
        division = divide(lake, data.label_set, data.recipe_id, settings, arrivals, silent)
        rows, _ = split_rows(division, settings)
        parts = []
        for wanted in ("train", "validation"):
            chosen = [(image_id, name) for image_id, name, split in rows if split == wanted]
            ids, names = [image_id for image_id, _ in chosen], np.array([name for _, name in chosen])
            parts.append(Part(ids, names, read_features(lake, data.recipe_id, ids)))
    return Rows(data, division.identity if arrivals else None, *parts)


def ask_for(settings: TrainSettings, kind: Kind) -> TrainSettings:
    """Give the settings under which a kind is trained alone."""
    return settings.model_copy(update={"heads": (kind,)})


def try_head(rows: Rows, contender: Contender, share: float, settings: TrainSettings) -> Trial:
    """Train a head on a share of the labels; the best of its candidates counts."""
    began, train = time.perf_counter(), rows.train
    places = take_share(list(zip(train.image_ids, train.names.tolist(), strict=True)), share, settings.seed)
    chosen = train.features[places], train.names[places]
    asked = rows.validation.features, rows.validation.names
    head = fit_heads(chosen, asked, ask_for(settings, contender.kind))[0].head
    return _judge(rows, contender, share, len(places), head, began)


def try_tail(
    home: Home, rows: Rows, cut: str, settings: TrainSettings, progress: Progress, deadline: float
) -> Trial | str:
    """Train a tail on all labels, or read the one that a training of the same identity recorded.

    Its checkpoints lie where that training would look for them: the winner's goes on from there to the same bits and
    trains no epoch again. Where it would not end by the deadline, gives in words why it was ended.
    """
    began, asked = time.perf_counter(), ask_for(settings, "tail")
    with read_lake(home, rows.data.at) as lake:
        training_id = identify(lake, rows.data, asked, rows.groups)
        known = find_training(lake, training_id)
    if known and head_path(home, training_id).exists():
        head, epoch = read_head(home, known, open_layers), int(known.hyperparameters["epoch"])
    else:
        checkpoints = checkpoint_folder(home, training_id)
        pretrained = Pretrained(home.backbones / rows.data.recipe_id, checkpoints, progress, deadline)
        train, chosen = ((part.features, part.names) for part in (rows.train, rows.validation))
        try:
            best = fit_heads(train, chosen, asked, pretrained)[0]
        except OutOfTimeError as error:
            return str(error)
        head, epoch = best.head, int(best.choice["epoch"])
    trial = _judge(rows, Contender(cut, "tail"), 1.0, len(rows.train.names), head, began)
    return replace(trial, epoch=epoch)


def estimate_tail(home: Home, rows: Rows, settings: TrainSettings) -> float:
    """Estimate the seconds that a tail takes, from a forward pass over some images on the CPU."""
    layers = open_layers(home.backbones / rows.data.recipe_id)
    some = rows.train.features[:PROBED]
    layers.run(some[:1])  # the first pass allocates
    began = time.perf_counter()
    layers.run(some)
    forward = (time.perf_counter() - began) / max(len(some), 1)
    images, chosen = len(rows.train.names), len(rows.validation.names)
    epochs = len(settings.tail.learning_rates) * settings.tail.epochs
    return forward * (epochs * (PASSES * images + chosen) + images + chosen)


def _judge(rows: Rows, contender: Contender, share: float, images: int, head: Classifier, began: float) -> Trial:
    asked = rows.validation
    answers = ask(head, asked.features, asked.names)
    right = dict(zip(asked.image_ids, answers.right.tolist(), strict=True))
    loss = log_loss(answers.probabilities, asked.names, head.classes)
    return Trial(contender, images, share, right, loss, time.perf_counter() - began)

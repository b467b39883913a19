"""One training: rows of one snapshot, a head, its measure, and the record of all three."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from storage.attach import open_lake, read_lake
from storage.canonical import digest
from storage.features import read_features
from storage.heads import save_head
from storage.images import list_facts
from storage.lake import Lake
from storage.paths import Home
from storage.release import name_release
from storage.trainings import (
    Training,
    digest_labelled,
    evaluation_path,
    find_training,
    head_path,
    list_labelled,
    save_training,
)
from storage.vectors import Matrix
from tasks.train.evaluate import Evaluation, evaluate
from tasks.train.settings import TrainSettings
from tasks.train.splits import SPLITS, Coverage, assign_split, check_splits, keep_single, warn_thin
from tasks.train.sweep import Candidate, fit_heads

FIRST = {"seed", "validation", "test", "l2", "class_weights", "leave_out", "iterations"}
"""Settings of the first release."""

TrainingRow = tuple[str, str, str]
"""(image_id, class, split)"""


@dataclass(frozen=True)
class Trained:
    """A training; ``new`` where it was done now and not found; ``warnings`` say what is thin about its labels."""

    training: Training
    new: bool
    warnings: tuple[str, ...]


def train_head(
    home: Home, label_set: str, recipe_id: str, settings: TrainSettings, now: datetime, at: int | None = None
) -> Trained:
    """Train a head on a snapshot's rows, or find the one that the same rows, recipe and settings gave before.

    Raises:
        TrainError: where the labels cannot train or measure a head.
    """
    with read_lake(home, at) as lake:
        training_id = identify(lake, label_set, recipe_id, settings)
        known = _find(home, lake, training_id)
        if known:
            return known
        labels = keep_single(list_labelled(lake, label_set, recipe_id), settings)
        coverage = check_splits(labels, settings)
        rows = [(image_id, name, assign_split(image_id, settings)) for image_id, name in labels.items()]
        snapshot = lake.snapshot if at is None else at
        features = read_features(lake, recipe_id, [image_id for image_id, _, _ in rows])
        facts = list_facts(lake, [image_id for image_id, _, split in rows if split == "test"])
    candidates, evaluation = _fit(features, rows, facts, settings)
    chosen = {**settings.model_dump(), **{f"chosen_{name}": value for name, value in candidates[0].choice.items()}}
    training = Training(training_id, label_set, recipe_id, snapshot, chosen, evaluation.metrics)
    _keep(home, training, candidates, evaluation, coverage)
    with open_lake(home) as lake:
        save_training(lake, training, _to_table(rows), now, name_release())
    return Trained(training, new=True, warnings=coverage.warnings)


def identify(lake: Lake, label_set: str, recipe_id: str, settings: TrainSettings) -> str:
    """Hash what decides a head: the recipe, the settings and the rows, whose splits follow from the settings.

    A setting that the first release had not counts where it is not the default, so that old heads stay known.
    """
    asked = settings.model_dump(include=FIRST) | settings.model_dump(exclude=FIRST, exclude_defaults=True)
    decides = {
        "label_set": label_set,
        "recipe": recipe_id,
        "settings": asked,
        "rows": digest_labelled(lake, label_set, recipe_id, settings.leave_out),
    }
    return digest(decides)


def _find(home: Home, lake: Lake, training_id: str) -> Trained | None:
    head, report = head_path(home, training_id), evaluation_path(home, training_id)
    training = find_training(lake, training_id) if head.exists() and report.exists() else None
    if training is None:
        return None
    return Trained(training, new=False, warnings=warn_thin(json.loads(report.read_text(encoding="utf-8"))["splits"]))


def _fit(
    features: Matrix, rows: Sequence[TrainingRow], facts: pa.Table, settings: TrainSettings
) -> tuple[tuple[Candidate, ...], Evaluation]:
    names = np.array([name for _, name, _ in rows])
    splits = np.array([split for _, _, split in rows])
    train, validation, test = ((features[splits == split], names[splits == split]) for split in SPLITS)
    candidates = fit_heads(train, validation, settings)
    return candidates, evaluate(candidates[0].head, *test, facts, settings.seed)


def _keep(
    home: Home, training: Training, candidates: Sequence[Candidate], evaluation: Evaluation, coverage: Coverage
) -> None:
    """Write the head and its measure as files; the lake's row, which comes after them, makes them count."""
    head = head_path(home, training.training_id)
    save_head(candidates[0].head, head)
    report = {
        **asdict(evaluation),
        "head_sha256": hashlib.sha256(head.read_bytes()).hexdigest(),
        "splits": coverage.counts,
        "candidates": [{**candidate.choice, "validation_log_loss": candidate.loss} for candidate in candidates],
    }
    evaluation_path(home, training.training_id).write_text(json.dumps(report, indent=1), encoding="utf-8")


def _to_table(rows: Sequence[TrainingRow]) -> pa.Table:
    image_ids, names, splits = zip(*rows, strict=True)
    return pa.table({"image_id": image_ids, "class": names, "split": splits})

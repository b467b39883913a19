"""One training: rows of one snapshot, a head, its measure, and the record of all three."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.canonical import digest
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName
from storage.progress import Progress, silent
from storage.release import name_release
from storage.tables.image_facts import list_facts
from storage.tables.trainings import (
    Training,
    checkpoint_folder,
    digest_labelled,
    evaluation_path,
    find_newest,
    find_training,
    head_path,
    save_training,
)
from tasks.heads.answers import mark_known
from tasks.heads.heads import save_head
from tasks.train.cross_validate import (
    Folds,
    cross_validate,
    cross_validate_labels,
    deal,
    measure_classes,
    measure_labels,
)
from tasks.train.fit.candidates import Candidate, Pretrained, fit_heads
from tasks.train.fit.multi_label import train_labels
from tasks.train.fit.unknown_classes import add_neither
from tasks.train.measure.evaluate import Evaluation, evaluate
from tasks.train.rows.coverage import Coverage, check_splits, warn_bridges, warn_thin
from tasks.train.rows.groups import read_arrivals
from tasks.train.rows.inputs import Inputs, read_inputs
from tasks.train.rows.splits import SPLITS, Division, Split, divide
from tasks.train.settings import TrainSettings

FIRST = {"seed", "validation", "test", "l2", "class_weights", "leave_out", "iterations"}
"""Settings of the first release."""
PLACE = {"device"}
"""Settings that decide nothing about a head."""

TrainingRow = tuple[str, str, Split]
"""(image_id, class, split)"""


@dataclass(frozen=True)
class Trained:
    """A training; ``new`` where it was done now and not found; ``warnings`` say what is thin about its labels."""

    training: Training
    new: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TrainingData:
    """Whose labels are learned, from features under which recipe, and under those of views, at which snapshot."""

    label_set: LabelSetName
    recipe_id: str
    views: tuple[str, ...] = ()
    at: int | None = None


def train_head(
    home: Home,
    data: TrainingData,
    settings: TrainSettings,
    now: datetime,
    progress: Progress = silent,
) -> Trained:
    """Train a head on a snapshot's rows, or find the one that the same rows, recipes and settings gave before.

    Raises:
        TrainError: where the labels cannot train or measure a head.
    """
    with read_lake(home, data.at) as lake:
        arrivals = read_arrivals(lake, data.label_set, data.recipe_id, settings)
        asked = identify(lake, data, settings, arrivals.identity if arrivals else None)
        known = _find_asked(home, lake, data, asked) if arrivals else _find(home, lake, asked)
        if known:
            return known
        division = divide(lake, data.label_set, data.recipe_id, settings, arrivals, progress)
        training_id = identify(lake, data, settings, division.identity) if arrivals else asked
        known = _find(home, lake, training_id) if arrivals else None
        if known:
            _keep_asked(home, training_id, asked)
            return known
        rows, coverage = split_rows(division, settings)
        snapshot = lake.snapshot if data.at is None else data.at
        images: dict[str, Split] = {image_id: split for image_id, _, split in rows}
        inputs = read_inputs(lake, data.recipe_id, images, data.views, average=settings.average_views)
        facts = list_facts(lake, [image_id for image_id, split in images.items() if split == "test"])
    folds = deal([division.keys[image_id] for image_id in _list_pool(rows)], settings) if settings.folds else None
    checkpoints = checkpoint_folder(home, training_id)
    pretrained = Pretrained(home.backbones / data.recipe_id, checkpoints, progress)
    candidates, evaluation = _fit(inputs, rows, facts, settings, pretrained)
    if folds:
        figures = _cross_validate(inputs, rows, folds, candidates[0], settings)
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **figures})
    kind = str(candidates[0].choice["head"])
    hyperparameters = {name: value for name, value in candidates[0].choice.items() if not isinstance(value, str)}
    values = settings.model_dump()
    named = training_id, data.label_set, data.recipe_id, snapshot
    training = Training(*named, values, kind, evaluation.metrics, hyperparameters, data.views)
    _keep(home, training, candidates, evaluation, coverage, division.bridges)
    if arrivals:
        _keep_asked(home, training_id, asked)
    with open_lake(home) as lake:
        save_training(lake, training, _to_table(rows), now, name_release())
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Trained(training, new=True, warnings=(*coverage.warnings, *warn_bridges(division.bridges)))


def split_rows(division: Division, settings: TrainSettings) -> tuple[list[TrainingRow], Coverage]:
    """List the rows of a training, split by split.

    Raises:
        TrainError: where the labels cannot train or measure a head.
    """
    coverage = check_splits(division.rows, settings, division.places)
    rows = [(image_id, name, division.places[image_id]) for image_id, name in division.rows]
    rows.sort(key=lambda row: SPLITS.index(row[2]))  # so that a split is a slice, and no copy
    return rows, coverage


def identify(lake: Lake, data: TrainingData, settings: TrainSettings, groups: str | None = None) -> str:
    """Hash what decides a head: the recipes, the settings and the rows, whose splits follow from the settings.

    Where they do not, as with groups, the identity of a division adds each image's group and split.
    A setting that the first release had not counts where it is not the default, so that old heads stay known.
    """
    chosen = settings.model_dump(include=FIRST) | settings.model_dump(exclude=FIRST | PLACE, exclude_defaults=True)
    rows = {
        recipe_id: digest_labelled(lake, data.label_set, recipe_id, settings.leave_out, several=settings.multi_label)
        for recipe_id in (data.recipe_id, *data.views)
    }
    decides: dict[str, object] = {
        "label_set": data.label_set,
        "recipe": data.recipe_id,
        "settings": chosen,
        "rows": rows.pop(data.recipe_id),
    }
    decides |= {"groups": groups} if groups else {}
    return digest(decides | ({"views": rows} if data.views else {}))


def _find_asked(home: Home, lake: Lake, data: TrainingData, asked: str) -> Trained | None:
    """Find the newest training, where the same was asked of the same images: none has to be compared again."""
    newest = find_newest(lake, data.label_set, data.recipe_id)
    file = _asked_path(home, newest.training_id) if newest else None
    same = file and file.exists() and file.read_text(encoding="utf-8") == asked
    return _find(home, lake, newest.training_id) if newest and same else None


def _keep_asked(home: Home, training_id: str, asked: str) -> None:
    _asked_path(home, training_id).write_text(asked, encoding="utf-8")


def _asked_path(home: Home, training_id: str) -> Path:
    return head_path(home, training_id).with_name("asked")


def _find(home: Home, lake: Lake, training_id: str) -> Trained | None:
    head, report = head_path(home, training_id), evaluation_path(home, training_id)
    training = find_training(lake, training_id) if head.exists() and report.exists() else None
    if training is None:
        return None
    found = json.loads(report.read_text(encoding="utf-8"))
    return Trained(training, new=False, warnings=(*warn_thin(found["splits"]), *warn_bridges(found.get("bridges", 0))))


def _fit(
    inputs: Inputs, rows: Sequence[TrainingRow], facts: pa.Table, settings: TrainSettings, pretrained: Pretrained
) -> tuple[tuple[Candidate, ...], Evaluation]:
    if settings.multi_label:
        return train_labels(inputs, rows, facts, settings)
    names = [np.array([name for _, name, split in rows if split == part]) for part in SPLITS]
    train = inputs.train, names[0][inputs.numbers]
    validation, test = (inputs.validation, names[1]), (inputs.test, names[2])
    candidates = fit_heads(train, validation, settings, pretrained)
    if settings.false_accept is None:
        return candidates, evaluate(candidates[0].head, *test, facts, settings.seed)
    found = add_neither(candidates[0], train, validation, test, settings, settings.false_accept)
    evaluation = evaluate(found.candidate.head, *test, facts, settings.seed)
    metrics = {**evaluation.metrics, **found.metrics}
    return (found.candidate, *candidates[1:]), replace(evaluation, metrics=metrics, unknown=found.classes)


def _list_pool(rows: Sequence[TrainingRow]) -> list[str]:
    """List the images to train and choose on, in the order of the rows."""
    return list(dict.fromkeys(image_id for image_id, _, split in rows if split != "test"))


def _cross_validate(
    inputs: Inputs, rows: Sequence[TrainingRow], folds: Folds, best: Candidate, settings: TrainSettings
) -> dict[str, float]:
    """Measure the chosen kind of head over folds, on the images alone, without their views."""
    pool = _list_pool(rows)
    own = inputs.train[: len(pool) - len(inputs.validation)]  # views come behind
    features = np.concatenate([own, inputs.validation[:, : own.shape[1]]])
    labels = [(image_id, name) for image_id, name, split in rows if split != "test"]
    if settings.multi_label:
        truth = mark_known(pool, labels, sorted({name for _, name in labels}))
        chances = cross_validate_labels(features, truth, folds, best.choice, settings)
        return measure_labels(chances, truth, folds, settings.seed)
    right = cross_validate(features, np.array([name for _, name in labels]), folds, best.choice, settings)
    return measure_classes(right, folds, settings.seed)


def _keep(
    home: Home,
    training: Training,
    candidates: Sequence[Candidate],
    evaluation: Evaluation,
    coverage: Coverage,
    bridges: int,
) -> None:
    """Write the head and its measure as files; the lake's row, which comes after them, makes them count."""
    head = head_path(home, training.training_id)
    save_head(candidates[0].head, head)
    report = {
        **asdict(evaluation),
        "head_sha256": hashlib.sha256(head.read_bytes()).hexdigest(),
        "splits": coverage.counts,
        "images": coverage.images,
        "bridges": bridges,
        "candidates": [{**candidate.choice, "validation_log_loss": candidate.loss} for candidate in candidates],
    }
    evaluation_path(home, training.training_id).write_text(json.dumps(report, indent=1), encoding="utf-8")


def _to_table(rows: Sequence[TrainingRow]) -> pa.Table:
    image_ids, names, splits = zip(*rows, strict=True)
    return pa.table({"image_id": image_ids, "class": names, "split": splits})

"""Train a head on the rows of one snapshot, evaluate it, and record both."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from storage.canonical import digest
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.names import LabelSetName
from storage.progress import Progress, silent
from storage.queries.image_facts import list_facts
from storage.release import name_release
from storage.tables.splits import list_given
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
from tasks.heads.answers import make_indicators
from tasks.heads.files import save_head
from tasks.train.calibrate.out_of_fold import Pool, calibrate_candidate, refit
from tasks.train.calibrate.unknown_classes import Price, add_rejection, warn_price
from tasks.train.cross_validate import (
    Folds,
    choose_folds,
    cross_validate,
    cross_validate_labels,
    measure_accuracy,
    measure_mean_average_precision,
)
from tasks.train.fit.candidates import Candidate, TailContext, fit_heads
from tasks.train.fit.multi_label import train_labels
from tasks.train.measure.evaluate import Evaluation, evaluate
from tasks.train.rows.assign import LabelledImages, SplitAssignment, SplitIdentity, place_images
from tasks.train.rows.coverage import Coverage, check_coverage, warn_bridges, warn_left_out, warn_thin
from tasks.train.rows.groups import GroupingInputs, read_grouping_inputs
from tasks.train.rows.split_features import SplitFeatures, read_split_features
from tasks.train.rows.splits import SPLITS, Split
from tasks.train.settings import TrainSettings

FIRST_SETTINGS = {"seed", "validation", "test", "l2", "class_weights", "leave_out", "iterations"}
"""Settings of the first release."""
PLACEMENT_SETTINGS = {"device"}
"""Settings that do not affect the head."""
REQUEST_FILE = "asked"
CROSS_VALIDATED = "cv_"
"""What the names of cross-validated figures begin with."""
MIN_STRENGTHS = 3
"""Of fewer strengths of L2 each is at an edge."""

logger = logging.getLogger(__name__)

TrainingRow = tuple[str, str, Split]
"""(image_id, class, split)"""


@dataclass(frozen=True)
class Trained:
    """A training, whether it is new rather than found, and warnings about its labels."""

    training: Training
    new: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TrainingData:
    """A label set, the recipes of the features and of their views, and a snapshot (None for the newest)."""

    label_set: LabelSetName
    recipe_id: str
    views: tuple[str, ...] = ()
    at: int | None = None


@dataclass(frozen=True)
class _Request:
    """What is to be trained, identified before images are grouped; ``grouping`` is None if nothing groups them."""

    identity: str
    grouping: GroupingInputs | None


@dataclass(frozen=True)
class _TrainingInputs:
    """Everything that training reads from the lake.

    ``facts`` are those of the test images, ``keys`` name the groups of the training and validation images.
    """

    snapshot: int
    rows: list[TrainingRow]
    coverage: Coverage
    bridges: int
    left_out: Mapping[str, int]
    features: SplitFeatures
    facts: pa.Table
    folds: Folds | None
    keys: tuple[str, ...]


def train_head(
    home: Home,
    data: TrainingData,
    settings: TrainSettings,
    now: datetime,
    progress: Progress = silent,
) -> Trained:
    """Train a head, or find the training of the same rows, recipes and settings.

    Raises:
        TrainError: if the labels are too few to train or measure a head.
    """
    with read_lake(home, data.at) as lake:
        request = _make_request(lake, data, settings)
        recorded = _find_by_request(home, lake, data, request)
        if recorded:
            return recorded
        images = LabelledImages(data.label_set, data.recipe_id, _number(lake, data))
        assignment = place_images(home, lake, images, settings, request.grouping, now, progress)
        skips_folds = _skips_folds(home, lake, data, settings, assignment)
        training_id = identify(lake, data, settings, assignment.identity, skips_folds=skips_folds)
        recorded = _find_training(home, lake, training_id)
        if recorded:
            _save_request(home, training_id, request)
            return recorded
        inputs = _read_inputs(lake, data, settings, assignment)
    checkpoints = checkpoint_folder(home, training_id)
    tail = TailContext(home.backbones / data.recipe_id, checkpoints, progress)
    candidates, evaluation = _fit_and_evaluate(inputs, settings, tail)
    evaluation = _add_cross_validation(inputs, candidates[0], evaluation, settings)
    training = _make_training(training_id, inputs.snapshot, data, settings, candidates[0], evaluation)
    _write_files(home, training, inputs, candidates, evaluation)
    _save_request(home, training_id, request)
    with open_lake(home) as lake:
        save_training(lake, training, _to_table(inputs.rows), now, name_release())
    shutil.rmtree(checkpoints, ignore_errors=True)
    warnings = (*inputs.coverage.warnings, *warn_bridges(inputs.bridges), *warn_edge(training))
    warnings += warn_price(settings.false_accept, cast("Sequence[Price]", evaluation.prices))
    return _log(Trained(training, new=True, warnings=warnings))


def _log(trained: Trained) -> Trained:
    """Log the warnings of a training."""
    for warning in trained.warnings:
        logger.warning("%s", warning)
    return trained


def split_rows(assignment: SplitAssignment, settings: TrainSettings) -> tuple[list[TrainingRow], Coverage]:
    """List the rows of a training, sorted by split.

    Raises:
        TrainError: if the labels are too few to train or measure a head.
    """
    coverage = check_coverage(assignment, settings)
    rows = [(image_id, name, assignment.splits[image_id]) for image_id, name in assignment.rows]
    rows.sort(key=lambda row: SPLITS.index(row[2]))  # makes each split a slice instead of a copy
    return rows, coverage


def identify(
    lake: Lake, data: TrainingData, settings: TrainSettings, splits: SplitIdentity, *, skips_folds: bool = False
) -> str:
    """Hash everything that decides a head: the label set, the recipes, the settings, the rows and their splits.

    A setting newer than the first release counts only if it differs from its default, and splits only if they do not
    follow from the rows, so that ids of older trainings stay the same. ``skips_folds`` says that there are no folds
    where there would be some by default.
    """
    chosen = settings.model_dump(include=FIRST_SETTINGS) | settings.model_dump(
        exclude=FIRST_SETTINGS | PLACEMENT_SETTINGS, exclude_defaults=True
    )
    if not settings.folds:
        chosen.pop("folds", None)  # often there would be none by default, either
    if skips_folds:
        chosen["folds"] = 0
    leave_out = (*settings.leave_out, *splits.left_out)
    rows = {
        recipe_id: digest_labelled(lake, data.label_set, recipe_id, leave_out, several=settings.multi_label)
        for recipe_id in (data.recipe_id, *data.views)
    }
    content: dict[str, object] = {
        "label_set": data.label_set,
        "recipe": data.recipe_id,
        "settings": chosen,
        "rows": rows.pop(data.recipe_id),
    }
    content |= {"groups": splits.digest} if splits.digest else {}
    return digest(content | ({"views": rows} if data.views else {}))


def warn_edge(training: Training) -> tuple[str, ...]:
    """Warn if the best strength of L2 is the weakest or the strongest that was tried: one beyond may be better."""
    strengths, chosen = sorted(cast("Sequence[float]", training.settings["l2"])), training.hyperparameters.get("l2")
    if chosen is None or len(set(strengths)) < MIN_STRENGTHS or chosen not in (strengths[0], strengths[-1]):
        return ()
    which, beyond = ("weakest", chosen / 10) if chosen == strengths[0] else ("strongest", chosen * 10)
    return (f"the best l2, {chosen:g}, is the {which} that was tried: add --train.l2 {beyond:g}",)


def _skips_folds(
    home: Home, lake: Lake, data: TrainingData, settings: TrainSettings, assignment: SplitAssignment
) -> bool:
    """Return whether the settings leave out folds that these images would have by default.

    A training of an earlier release, whose default was no folds, counts as the same one.
    """
    if settings.folds != 0:
        return False
    by_default = settings.model_copy(update={"folds": None})
    rows, coverage = split_rows(assignment, settings)
    if _choose_folds(rows, coverage, assignment, by_default)[1] is None:
        return False
    with read_lake(home) as newest:  # the lake itself may be at an earlier snapshot
        recorded = find_training(newest, identify(lake, data, by_default, assignment.identity))
    return recorded is None or any(name.startswith(CROSS_VALIDATED) for name in recorded.metrics)


def _choose_folds(
    rows: Sequence[TrainingRow], coverage: Coverage, assignment: SplitAssignment, settings: TrainSettings
) -> tuple[tuple[str, ...], Folds | None]:
    """Name the groups of the training and validation images, and assign these to folds, if there are any."""
    pool = {image_id: name for image_id, name, split in rows if split != "test"}
    keys = tuple(assignment.groups[image_id] for image_id in pool)
    return keys, choose_folds(keys, np.array(list(pool.values())), coverage.images["test"], settings)


def _make_request(lake: Lake, data: TrainingData, settings: TrainSettings) -> _Request:
    grouping = read_grouping_inputs(lake, data.label_set, data.recipe_id, settings)
    given = sorted(list_given(lake, data.label_set).items())
    deciding = [grouping and grouping.identity, given]
    plain = grouping.identity if grouping else None
    splits = SplitIdentity(digest(deciding) if given else plain)
    return _Request(identify(lake, data, settings, splits, skips_folds=settings.folds == 0), grouping)


def _number(lake: Lake, data: TrainingData) -> int:
    """Return the snapshot that is trained on."""
    return lake.snapshot if data.at is None else data.at


def _find_by_request(home: Home, lake: Lake, data: TrainingData, request: _Request) -> Trained | None:
    """Find the training of a request among the newest and those of earlier releases, without splitting images."""
    recorded = None if request.grouping else _find_training(home, lake, request.identity)
    if recorded:
        return recorded
    newest = find_newest(lake, data.label_set, data.recipe_id)
    file = _request_path(home, newest.training_id) if newest else None
    same = file and file.exists() and file.read_text(encoding="utf-8") == request.identity
    return _find_training(home, lake, newest.training_id) if newest and same else None


def _save_request(home: Home, training_id: str, request: _Request) -> None:
    _request_path(home, training_id).write_text(request.identity, encoding="utf-8")


def _request_path(home: Home, training_id: str) -> Path:
    return head_path(home, training_id).with_name(REQUEST_FILE)


def _find_training(home: Home, lake: Lake, training_id: str) -> Trained | None:
    """Find a recorded training whose files exist."""
    head, report = head_path(home, training_id), evaluation_path(home, training_id)
    training = find_training(lake, training_id) if head.exists() and report.exists() else None
    if training is None:
        return None
    evaluation = json.loads(report.read_text(encoding="utf-8"))
    warnings = (
        *warn_left_out(evaluation.get("left_out", {})),
        *warn_thin(evaluation["splits"]),
        *warn_bridges(evaluation.get("bridges", 0)),
        *warn_edge(training),
        *warn_price(cast("float | None", training.settings.get("false_accept")), evaluation.get("prices", ())),
    )
    return _log(Trained(training, new=False, warnings=warnings))


def _read_inputs(
    lake: Lake, data: TrainingData, settings: TrainSettings, assignment: SplitAssignment
) -> _TrainingInputs:
    rows, coverage = split_rows(assignment, settings)
    images: dict[str, Split] = {image_id: split for image_id, _, split in rows}
    features = read_split_features(lake, data.recipe_id, images, data.views, average=settings.average_views)
    facts = list_facts(lake, [image_id for image_id, split in images.items() if split == "test"])
    keys, folds = _choose_folds(rows, coverage, assignment, settings)
    number, left_out = _number(lake, data), assignment.left_out
    return _TrainingInputs(number, rows, coverage, assignment.bridges, left_out, features, facts, folds, keys)


def _fit_and_evaluate(
    inputs: _TrainingInputs, settings: TrainSettings, tail: TailContext
) -> tuple[tuple[Candidate, ...], Evaluation]:
    """Fit all candidates, best first, and evaluate the best on test images."""
    rows, features, facts = inputs.rows, inputs.features, inputs.facts
    if settings.multi_label:
        return train_labels(features, rows, facts, settings)
    names = [np.array([name for _, name, split in rows if split == part]) for part in SPLITS]
    train = features.train, names[0][features.image_rows]
    validation, test = (features.validation, names[1]), (features.test, names[2])
    first, *others = fit_heads(train, validation, settings, tail)
    pool = Pool(train, features.image_rows, validation, inputs.keys)
    first = calibrate_candidate(first, pool, settings)
    first = refit(first, pool, settings) if settings.refit else first
    candidates = (first, *others)
    if settings.false_accept is None:
        return candidates, evaluate(candidates[0].head, *test, facts)
    rejection = add_rejection(candidates[0], train, validation, test, settings.false_accept)
    evaluation = evaluate(rejection.candidate.head, *test, facts)
    metrics = {**evaluation.metrics, **rejection.metrics}
    return (rejection.candidate, *candidates[1:]), replace(
        evaluation, metrics=metrics, unknown=rejection.classes, prices=tuple(map(dict, rejection.prices))
    )


def _list_pool(rows: Sequence[TrainingRow]) -> list[str]:
    """List the training and validation images, in the order of the rows."""
    return list(dict.fromkeys(image_id for image_id, _, split in rows if split != "test"))


def _add_cross_validation(
    inputs: _TrainingInputs, best: Candidate, evaluation: Evaluation, settings: TrainSettings
) -> Evaluation:
    """Add the metrics of cross-validating the best candidate, on training and validation images without views."""
    folds = inputs.folds
    if folds is None:
        return evaluation
    pool = _list_pool(inputs.rows)
    train = inputs.features.train[: len(pool) - len(inputs.features.validation)]  # views come after the images
    features = np.concatenate([train, inputs.features.validation[:, : train.shape[1]]])
    labels = [(image_id, name) for image_id, name, split in inputs.rows if split != "test"]
    if settings.multi_label:
        truth = make_indicators(pool, labels, sorted({name for _, name in labels}))
        probabilities = cross_validate_labels(features, truth, folds, best.hyperparameters, settings)
        metrics = measure_mean_average_precision(probabilities, truth, folds)
    else:
        names = np.array([name for _, name in labels])
        correct = cross_validate(features, names, folds, best.hyperparameters, settings)
        metrics = measure_accuracy(correct, folds)
    return replace(evaluation, metrics={**evaluation.metrics, **metrics})


def _make_training(
    training_id: str,
    snapshot: int,
    data: TrainingData,
    settings: TrainSettings,
    best: Candidate,
    evaluation: Evaluation,
) -> Training:
    return Training(
        training_id,
        data.label_set,
        data.recipe_id,
        snapshot,
        settings.model_dump(),
        str(best.hyperparameters["head"]),
        evaluation.metrics,
        {name: value for name, value in best.hyperparameters.items() if not isinstance(value, str)},
        data.views,
    )


def _write_files(
    home: Home, training: Training, inputs: _TrainingInputs, candidates: Sequence[Candidate], evaluation: Evaluation
) -> None:
    """Write the head and its evaluation; they count once the lake has the training's row."""
    head = head_path(home, training.training_id)
    save_head(candidates[0].head, head)
    report = {
        **asdict(evaluation),
        "head_sha256": hashlib.sha256(head.read_bytes()).hexdigest(),
        "splits": inputs.coverage.counts,
        "images": inputs.coverage.images,
        "bridges": inputs.bridges,
        "left_out": inputs.left_out,
        "candidates": [
            {**candidate.hyperparameters, "validation_log_loss": candidate.loss} for candidate in candidates
        ],
    }
    evaluation_path(home, training.training_id).write_text(json.dumps(report, indent=1), encoding="utf-8")


def _to_table(rows: Sequence[TrainingRow]) -> pa.Table:
    image_ids, names, splits = zip(*rows, strict=True)
    return pa.table({"image_id": image_ids, "class": names, "split": splits})

"""Frostline in Python: plan and run the pipeline, read the lake, classify images with a trained model.

What ``__all__`` names is the public API, described in docs/python.md. Everything else, in every other package of this
distribution, is internal and may change in any release. Importing this module imports none of torch, Prefect, MLflow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import flows.settings
from flows.settings import LakeSettings, RunSettings
from storage.errors import FrostlineError, RegistryError
from storage.lake.attach import read_existing_lake
from storage.lake.lake import Lake
from storage.locations.home import Home, open_home
from storage.names import ModelName
from storage.tables.models import find_registered
from storage.tables.trainings import Training, find_training
from storage.vectors.feature_file import Matrix
from storage.vectors.features_reader import Features, find_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.heads.answers import apply_thresholds, is_multi_label, name_labels, predict_classes
from tasks.heads.heads import Classifier
from tasks.ingest.settings import IngestSettings
from tasks.register.settings import RegisterSettings
from tasks.train.settings import SearchSettings, TailSettings, TrainSettings

if TYPE_CHECKING:
    from flows.operations.plan import Plan
    from flows.reports.run_report import RunReport

__all__ = [
    "Answer",
    "EmbedSettings",
    "Features",
    "FrostlineError",
    "IngestSettings",
    "Lake",
    "LakeSettings",
    "Model",
    "RegisterSettings",
    "RunSettings",
    "SearchSettings",
    "TailSettings",
    "TrainSettings",
    "find_features",
    "open_model",
    "plan",
    "read_lake",
    "run",
]


@dataclass(frozen=True)
class Answer:
    """What a model says about one image.

    ``classes`` has one class; of a model that may refuse, perhaps "neither"; of a multi-label model, any number.
    ``probabilities`` has every class, in the model's order.
    """

    classes: tuple[str, ...]
    probabilities: dict[str, float]


@dataclass(frozen=True, eq=False)
class Model:
    """A head and its encoder, opened from a home. It answers as the registered model does when it is served.

    ``classes`` are the names that it knows; ``training_id`` and ``recipe_id`` name its rows in the lake.
    """

    classes: tuple[str, ...]
    training_id: str
    recipe_id: str
    _head: Classifier
    _embed: Callable[[Sequence[bytes]], Matrix]

    def classify(self, images: Sequence[bytes | str | Path]) -> list[Answer]:
        """Classify images, each given as its encoded bytes (JPEG, PNG, ...) or as the path of a file.

        Returns:
            An answer for each image, in their order.

        Raises:
            Exception: of any kind, at the first image that cannot be read or decoded.
        """
        features = self._embed([_read(image) for image in images])
        probabilities = self._head.probabilities(features)
        if is_multi_label(self._head):
            names = name_labels(self.classes, apply_thresholds(self._head, probabilities))
        else:
            names = [[name] for name in predict_classes(self._head, features, probabilities).tolist()]
        rows = (dict(zip(self.classes, map(float, row), strict=True)) for row in probabilities)
        return [Answer(tuple(chosen), row) for chosen, row in zip(names, rows, strict=True)]


def plan(settings: RunSettings) -> "Plan":
    """Compute what a run would do, why, and what it would cost; writes nothing, as ``frostline plan``.

    Raises:
        FrostlineError: if the settings, the source or the lake do not allow a run.
    """
    from flows.operations.plan import make_plan

    return make_plan(settings)


def run(settings: RunSettings) -> "RunReport":
    """Ingest, embed what is missing, train if anything changed and register what is new, as ``frostline run``.

    With a Prefect server in PREFECT_API_URL this is a flow run, without one a plain call.

    Raises:
        FrostlineError: if the settings, the source, the lake, the registry or Prefect do not allow the run.
    """
    flows.settings.configure_prefect(debug=False)
    from flows.orchestrator.server import explain_server_errors
    from flows.pipeline import pipeline

    with explain_server_errors():
        return pipeline(settings)


def read_lake(home: str | Path = ".frostline", at: int | str | None = None, lake: LakeSettings | None = None) -> Lake:
    """Open the lake of a home for reading, as it is or as it was at a snapshot's number or tag.

    Close it, or use it as a context manager. ``lake`` names a catalog or a data folder outside the home.

    Raises:
        LakeError: if there is no lake or no such snapshot, or it cannot be opened.
    """
    return read_existing_lake(_open_home(home, lake), at)


def open_model(
    home: str | Path,
    name: str,
    version: int | str = "champion",
    *,
    lake: LakeSettings | None = None,
    registry: RegisterSettings | None = None,
    batch: int | None = None,
    max_bytes: int = DEFAULT.bytes,
    max_seconds: float = DEFAULT.seconds,
) -> Model:
    """Open a registered model from its home, without an MLflow server and without loading MLflow's copy.

    Args:
        home: The home that the model was trained in.
        name: The name of the registered model.
        version: Its number, which the lake records; or an alias, which is looked up in MLflow.
        lake: A catalog or a data folder outside the home.
        registry: The registry of the alias, if it is neither the home's own nor MLFLOW_TRACKING_URI.
        batch: ``embed.batch`` of the runs that filled the lake, if it was set.
        max_bytes: Memory that decoding one image may take, as ``embed.max_bytes``.
        max_seconds: CPU seconds that decoding one image may take, as ``embed.max_seconds``.

    Raises:
        LakeError: if the home has no lake, or it cannot be opened.
        RegistryError: if there is no such model, version or alias, or MLflow does not answer.
    """
    from tasks.encoder.layers import open_layers
    from tasks.encoder.pack import open_images
    from tasks.encoder.runtimes.exported import find_served_model
    from tasks.encoder.runtimes.exported_images import open_exported_images
    from tasks.heads.load import read_head

    where = _open_home(home, lake)
    with read_existing_lake(where) as opened:
        training = _find_version(opened, ModelName(name), version, registry or RegisterSettings())
    head = read_head(where, training, open_layers)
    packed, budget = where.backbones / training.recipe_id, Budget(max_bytes, max_seconds)
    exported = find_served_model(where, training.recipe_id)  # needs no torch
    embed = (
        open_exported_images(packed, exported, batch, head.views, budget)
        if exported
        else open_images(packed, batch, head.views, budget)
    )
    return Model(head.classes, training.training_id, training.recipe_id, head, embed)


def _open_home(root: str | Path, lake: LakeSettings | None) -> Home:
    chosen = lake or LakeSettings()
    return open_home(Path(root), chosen.catalog, chosen.data)


def _find_version(lake: Lake, name: ModelName, version: int | str, registry: RegisterSettings) -> Training:
    known = lake.column("SELECT version FROM models WHERE name = ? ORDER BY version", [name])
    if not known:
        raise RegistryError(f"model {name}", "is not recorded in this lake", "Register one: frostline run FOLDER")
    if isinstance(version, int):
        training = find_registered(lake, name, version)
    else:
        training = find_training(lake, _find_alias(lake.home, name, version, registry))
    if training is None:
        numbers = ", ".join(map(str, known))
        raise RegistryError(f"model {name}", f"has no version {version} in this lake", f"Choose one of {numbers}")
    return training


def _find_alias(home: Home, name: ModelName, alias: str, settings: RegisterSettings) -> str:
    """Look up an alias in MLflow, where people move it; returns the training's id, "" if there is no such alias."""
    from tasks.register.registry.client import TRAINING_TAG, find_alias, open_registry

    with open_registry(home, settings) as client:
        found = find_alias(client, name, alias)
    return found.tags.get(TRAINING_TAG, "") if found else ""


def _read(image: bytes | str | Path) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()

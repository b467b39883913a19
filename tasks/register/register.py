"""From a training to a registered version: log it, register it, compare it with the champion, record it."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from storage.errors import ImageError, RegistryError
from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.locks import hold_lock
from storage.locations.stamps import Stamp, stamp_files
from storage.names import ModelName
from storage.recipe import Transform
from storage.sources.copies import read_image
from storage.tables.canaries import Canaries, find_canaries
from storage.tables.models import Version, find_champion, find_version, save_promotion, save_version
from storage.tables.recipes import get_recipe
from storage.tables.trainings import Training, find_training, head_path, list_split
from storage.vectors.feature_file import Matrix, measure_distances
from tasks.encoder.layers import open_layers
from tasks.encoder.pack import open_images
from tasks.encoder.pixels.budget import DEFAULT, Budget, BudgetError
from tasks.encoder.pixels.decode import decode
from tasks.encoder.runtimes.exported import find_served_model
from tasks.encoder.runtimes.exported_images import open_exported_images
from tasks.heads.answers import is_multi_label
from tasks.heads.heads import Classifier
from tasks.heads.load import read_head, read_head_inputs
from tasks.heads.predict import predict_stored
from tasks.register.champion import ChampionGap, follow_champion
from tasks.register.gate.compare import GateDecision, compare_with_champion
from tasks.register.registry.client import RECIPE_TAG, TRAINING_TAG, find_alias, find_registered, open_registry
from tasks.register.registry.identity import resolve_registry
from tasks.register.registry.package import TOLERANCE, ModelPackage, ServedEncoder, WritePage, log_run
from tasks.register.settings import (
    REGISTERED_BEFORE,
    RegisterSettings,
    list_registry_files,
    resolve_tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXAMPLES = 4


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry.

    Attributes:
        name: The registered model's name.
        version: The version's number.
        alias: The alias, if the version has it.
        run_id: The MLflow run that logged it.
        experiment_id: The experiment of that run.
        tracking_uri: MLflow's tracking URI.
        new: Whether it was registered now.
        reason: Why it has the alias or not.
        registry: The stamps of the registry's files before the alias was read last; None if a server keeps it.
        gap: What keeps the champion, this version or another, from predicting every image; None if nothing does.
    """

    name: ModelName
    version: int
    alias: str | None
    run_id: str
    experiment_id: str
    tracking_uri: str
    new: bool
    reason: str
    registry: dict[str, Stamp] | None = None
    gap: ChampionGap | None = None


def register_head(
    home: Home,
    name: ModelName,
    training_id: str,
    write_page: WritePage,
    batch: int | None,
    settings: RegisterSettings,
    budget: Budget = DEFAULT,
) -> str:
    """Log a training as a model and register it, unless it is registered; returns the version.

    Of several runs of a home that register the same training at once, one does it and the others wait.

    Args:
        home: The home of lake, head and backbone.
        name: The registered model's name.
        training_id: A training in the lake.
        write_page: Writes the training's evaluation page and plots.
        batch: The fixed batch size of the lake's vectors.
        settings: Where the registry is.
        budget: What decoding one image may take when the model is served.

    Raises:
        RegistryError: if MLflow does not answer, this machine computes other vectors than the lake has, or the logged
            model gives other probabilities than its head.
    """
    with open_registry(home, settings) as client, _lock_training(home, training_id):
        with open_lake(home) as lake:
            resolve_registry(client, lake, name, take_over=settings.take_over)
        existing = find_registered(client, name, training_id)
        if existing:
            return str(existing.version)
        with read_lake(home) as lake:
            training = _get_training(lake, training_id)
            head = read_head(home, training, open_layers)
            exported = find_served_model(home, training.recipe_id)
            encoder = ServedEncoder(home.backbones / training.recipe_id, batch, head.views, budget, exported)
            package = _make_package(lake, name, training, head, encoder, write_page)
        run_id = log_run(client, home, package)
        return _register(client, package, run_id)


def decide_promotion(
    home: Home, name: ModelName, training_id: str, settings: RegisterSettings, now: datetime
) -> RegisteredVersion:
    """Make a version champion if it passes the gate, once per version; then let the champion predict new images.

    Raises:
        RegistryError: if MLflow does not answer, has no version of the training, or is not the registry of the lake's
            versions.
    """
    with open_registry(home, settings) as client, _lock_training(home, training_id), open_lake(home) as lake:
        version = find_registered(client, name, training_id)
        if version is None:
            raise RegistryError(f"model {name}", "has no version of this training", "Run again")
        registry = resolve_registry(client, lake, name, take_over=settings.take_over)
        recorded = find_version(lake, name, registry, training_id)
        if recorded and recorded.run_id == version.run_id:
            registered = _describe(client, home, settings, version, new=False, reason=REGISTERED_BEFORE)
        else:
            registered = _pass_gate(client, lake, home, settings, version, registry, training_id, now)
        gap = follow_champion(client, lake, home, name, registry, settings.alias, now)
    return replace(registered, gap=gap)


@contextlib.contextmanager
def _lock_training(home: Home, training_id: str) -> Iterator[None]:
    """Let one process of a home at a time register a training or promote its version."""
    folder = head_path(home, training_id).parent
    with hold_lock(folder) if folder.is_dir() else contextlib.nullcontext():
        yield


def _pass_gate(
    client: "MlflowClient",
    lake: Lake,
    home: Home,
    settings: RegisterSettings,
    version: "ModelVersion",
    registry: str,
    training_id: str,
    now: datetime,
) -> RegisteredVersion:
    """Compare a new version with the champion, and record it with its predictions."""
    training = _get_training(lake, training_id)
    decision = _promote_if_better(client, lake, home, settings, version, training)
    registered = _describe(client, home, settings, version, new=True, reason=decision.reason)
    name, number = registered.name, registered.version
    row = Version(name, number, training_id, registered.run_id, registered.alias, registry)
    save_version(lake, row, predict_stored(lake, home, training, open_layers), now, decision.rows)
    if registered.alias and find_champion(lake, name) != (registry, number):
        save_promotion(lake, row, decision.reason, now)
    return registered


def _make_package(
    lake: Lake, name: ModelName, training: Training, head: Classifier, encoder: ServedEncoder, write_page: WritePage
) -> ModelPackage:
    recipe = get_recipe(lake, training.recipe_id)
    examples = _read_examples(lake, name, training, recipe.transform, encoder.budget)
    images = tuple(examples.values())
    vectors = _open_encoder(encoder)(images)
    stored = read_head_inputs(lake, training, list(examples))
    _check_vectors(name, vectors, stored, find_canaries(lake, training.recipe_id))
    return ModelPackage(
        name=name,
        training=training,
        recipe=recipe,
        encoder=encoder,
        write_page=write_page,
        examples=images,
        expected=head.probabilities(vectors),
        multi_label=is_multi_label(head),
    )


def _open_encoder(encoder: ServedEncoder) -> Callable[[Sequence[bytes]], Matrix]:
    """Open an encoder as a served model opens it."""
    if encoder.exported is None:
        return open_images(encoder.backbone, encoder.batch, encoder.views, encoder.budget)
    return open_exported_images(encoder.backbone, encoder.exported, encoder.batch, encoder.views, encoder.budget)


def _check_vectors(name: ModelName, vectors: Matrix, stored: Matrix, canaries: Canaries | None) -> None:
    """Refuse a machine whose vectors differ from the lake's by more than their recipe tolerates."""
    tolerance = canaries.tolerance if canaries else TOLERANCE
    worst = float(measure_distances(vectors, stored).max())
    if not worst <= tolerance:  # catches NaN, too
        raise RegistryError(
            f"model {name}",
            f"gets vectors that differ from the lake's by {worst:.1e} of their length, {tolerance:.1e} is allowed",
            "Other hardware, libraries or another batch size made the lake's: register where they were made",
        )


def _read_examples(
    lake: Lake, name: ModelName, training: Training, transform: Transform, budget: Budget
) -> dict[str, bytes]:
    """Read the first test images by id.

    Left out are those whose files are gone or hold other bytes now, and those that only a larger budget could decode.

    Raises:
        RegistryError: if no test image can be read.
    """
    examples, reason = dict[str, bytes](), "it has none"
    for image_id in dict(list_split(lake, training.training_id, "test")):
        try:
            data = read_image(lake, image_id)
            decode(data, transform, budget=budget)
        except ImageError as error:
            reason = f"{error.value}: {error.rule}"
        except BudgetError as error:
            reason = f"image {image_id} {error}"
        else:
            examples[image_id] = data
        if len(examples) == EXAMPLES:
            break
    if not examples:
        rule = f"needs a test image whose file can be read ({reason})"
        raise RegistryError(f"model {name}", rule, "Restore the images' files")
    return examples


def _register(client: "MlflowClient", package: ModelPackage, run_id: str) -> str:
    import mlflow

    training = package.training
    tags = {TRAINING_TAG: training.training_id, RECIPE_TAG: training.recipe_id, "snapshot": str(training.snapshot)}
    with contextlib.redirect_stderr(
        io.StringIO()
    ):  # MLflow would say that the model "already exists", made just before
        version = mlflow.register_model(f"runs:/{run_id}/model", package.name, tags=tags)
    client.update_model_version(
        package.name, version.version, f"Snapshot {training.snapshot}, recipe {training.recipe_id[:12]}"
    )
    return str(version.version)


def _promote_if_better(
    client: "MlflowClient",
    lake: Lake,
    home: Home,
    settings: RegisterSettings,
    version: "ModelVersion",
    training: Training,
) -> GateDecision:
    champion = find_alias(client, ModelName(version.name), settings.alias)
    champion_id = champion.tags.get(TRAINING_TAG, "") if champion else None
    decision = compare_with_champion(home, lake, training, champion_id, settings.gate)
    if decision.promoted:
        client.set_registered_model_alias(version.name, settings.alias, version.version)
    client.set_model_version_tag(version.name, version.version, "gate", decision.reason)
    return decision


def _describe(
    client: "MlflowClient", home: Home, settings: RegisterSettings, version: "ModelVersion", *, new: bool, reason: str
) -> RegisteredVersion:
    files = list_registry_files(home, settings)
    registry = None if files is None else stamp_files(files)
    champion = find_alias(client, ModelName(version.name), settings.alias)
    run_id = str(version.run_id)
    run = client.get_run(run_id)
    return RegisteredVersion(
        name=ModelName(version.name),
        version=int(version.version),
        alias=settings.alias if champion and int(champion.version) == int(version.version) else None,
        run_id=run_id,
        experiment_id=run.info.experiment_id,
        tracking_uri=resolve_tracking_uri(home, settings),
        new=new,
        reason=reason,
        registry=registry,
    )


def _get_training(lake: Lake, training_id: str) -> Training:
    training = find_training(lake, training_id)
    if training is None:
        raise RegistryError(f"training {training_id}", "is not in this lake", "Train first")
    return training

"""A training as an MLflow run with a model: parameters, metrics, tables, pictures, lineage, and the model itself."""

import base64
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

import numpy as np

from storage.errors import RegistryError
from storage.locations.home import Home
from storage.locations.links import share_file
from storage.names import ModelName
from storage.recipe import Recipe
from storage.tables.trainings import Training, evaluation_path, head_path
from tasks.encoder.backbone.weights import digest_file
from tasks.encoder.pixels.budget import Budget
from tasks.heads.heads import Floats
from tasks.register.registry.client import RECIPE_TAG, TRAINING_TAG, find_experiment
from tasks.register.registry.code import collect_code, forget_package

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

TOLERANCE = 1e-5


WritePage = Callable[[Home, str, Path], None]
"""Writes the evaluation page and the plots of a training, given by its id, to a folder."""


@dataclass(frozen=True)
class ServedEncoder:
    """The encoder of a registered model.

    Attributes:
        backbone: The folder of the packed backbone.
        batch: The fixed batch size of the lake's vectors.
        views: How many views an answer averages over; the first is the image itself.
        budget: What decoding one image may take: as much as for the lake's vectors.
        exported: The backbone as an ONNX file, which is served without torch; None if only torch computes its numbers.
    """

    backbone: Path
    batch: int | None
    views: int
    budget: Budget
    exported: Path | None = None

    def list_artifacts(self) -> dict[str, str]:
        """Return the files that a served model opens."""
        artifacts = {"backbone": str(self.backbone)}
        return artifacts if self.exported is None else {**artifacts, "exported": str(self.exported)}

    def list_files(self) -> list[Path]:
        """List the files of the backbone, which are the same in every version that uses it."""
        return [*self.backbone.glob("*"), *([self.exported] if self.exported else [])]

    def to_config(self) -> dict[str, int | float | str | None]:
        """Return what a served model reads when it is loaded."""
        budget = {"bytes": self.budget.bytes, "seconds": self.budget.seconds, "together": self.budget.together}
        digest = digest_file(self.exported) if self.exported else None
        limits = {f"budget_{name}": most for name, most in budget.items()}
        return {"batch": self.batch, "views": self.views, "exported_sha256": digest, **limits}


@dataclass(frozen=True)
class ModelPackage:
    """What a registered model is made of.

    Attributes:
        name: The registered model's name.
        training: The training whose head it serves.
        recipe: The recipe of its vectors.
        encoder: How it computes vectors.
        write_page: Writes the evaluation page and its plots.
        examples: The bytes of some test images.
        expected: Their probabilities [n, classes], computed here.
        multi_label: Whether an image may get several labels.
    """

    name: ModelName
    training: Training
    recipe: Recipe
    encoder: ServedEncoder
    write_page: WritePage
    examples: tuple[bytes, ...]
    expected: Floats
    multi_label: bool


def log_run(client: "MlflowClient", home: Home, package: ModelPackage) -> str:
    """Log a training and its model as one MLflow run; returns the run's id.

    Raises:
        RegistryError: if the logged model, loaded again, gives other probabilities than its backbone and head.
    """
    import mlflow

    from tasks.register.registry.dataset_lineage import describe_data

    experiment = find_experiment(client, home, package.name)
    with mlflow.start_run(experiment_id=experiment, run_name=package.training.training_id[:12]) as run:
        _log_figures(home, package)
        mlflow.log_input(describe_data(home, package.training), context="training")
        _share_backbone(client, _log_model(home, package), package.encoder)
        _check_model(f"runs:/{run.info.run_id}/model", package)
    return str(run.info.run_id)


def _log_figures(home: Home, package: ModelPackage) -> None:
    import mlflow
    import pandas as pd

    training = package.training
    evaluation = json.loads(evaluation_path(home, training.training_id).read_text(encoding="utf-8"))
    totals = evaluation.get("images") or {  # of earlier releases
        split: sum(row[split] for row in evaluation["splits"].values()) for split in ("train", "validation", "test")
    }
    mlflow.set_tags({TRAINING_TAG: training.training_id, RECIPE_TAG: training.recipe_id})
    mlflow.log_params(
        {
            **{f"train.{key}": value for key, value in training.parameters.items()},
            "recipe_id": training.recipe_id,
            "snapshot": training.snapshot,
            "architecture": package.recipe.architecture,
            "cut": package.recipe.cut,
            "dtype": package.recipe.dtype,
            **{f"images.{split}": total for split, total in totals.items()},
        }
    )
    mlflow.log_metrics(training.metrics)
    mlflow.log_text(package.recipe.text, "recipe.json")
    mlflow.log_dict(evaluation, "evaluation.json")
    mlflow.log_table(pd.DataFrame(evaluation["classes"]), "classes.json")
    with tempfile.TemporaryDirectory() as folder:
        package.write_page(home, training.training_id, Path(folder))
        mlflow.log_artifacts(folder)


def _log_model(home: Home, package: ModelPackage) -> str:
    """Log the model; returns its id."""
    import mlflow
    import pandas as pd

    code, encoder = collect_code(), package.encoder
    with tempfile.TemporaryDirectory() as folder, _import_from(folder, code.package):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code.write(Path(folder))),
            artifacts={**encoder.list_artifacts(), "head": str(head_path(home, package.training.training_id))},
            code_paths=[str(Path(folder) / code.package)],
            model_config=encoder.to_config(),
            signature=_make_signature(multi_label=package.multi_label),
            input_example=pd.DataFrame({"image": [base64.b64encode(package.examples[0]).decode()]}),
            pip_requirements=code.list_requirements(),
            metadata={"recipe": json.loads(package.recipe.text), "snapshot": package.training.snapshot},
        )
    return str(logged.model_id)


def _share_backbone(client: "MlflowClient", model_id: str, encoder: ServedEncoder) -> None:
    """Let a model in a local store share the home's files of its backbone: each version would have a copy otherwise."""
    location = urlsplit(client.get_logged_model(model_id).artifact_location)
    if location.scheme != "file":
        return
    originals = {path.name: path for path in encoder.list_files()}
    for copy in (Path(unquote(location.path)) / "artifacts").rglob("*"):
        if copy.is_file() and copy.name in originals:
            share_file(originals[copy.name], copy)


@contextlib.contextmanager
def _import_from(folder: str, package: str) -> Iterator[None]:
    """Let MLflow import a package from a folder while it logs the model; later imports take the model's own copy."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        forget_package(package)


def _make_signature(*, multi_label: bool) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Map

    single = [ColSpec(DataType.string, "class"), ColSpec(DataType.double, "probability")]
    answer = [ColSpec(Array(DataType.string), "classes")] if multi_label else single
    probabilities = ColSpec(Map(DataType.double), "probabilities")
    # Text and not binary: MLflow would decode base64 itself, and refuse a whole request for one value that is none.
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema([*answer, probabilities, ColSpec(DataType.string, "error", required=False)]),
    )


def _check_model(uri: str, package: ModelPackage) -> None:
    """Load the model and call it, as MLflow would register a broken one without complaint."""
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model(uri)
    answers = model.predict(pd.DataFrame({"image": list(package.examples)}))["probabilities"]
    served = np.array([list(cast("dict[str, float]", answer).values()) for answer in answers])
    worst = float(np.abs(served - package.expected).max())
    if worst > TOLERANCE:
        raise RegistryError(
            f"model {package.name}",
            f"gives probabilities that differ by {worst:.1e} from its backbone and head, {TOLERANCE:.0e} is allowed",
            "The logged model is not the trained one: check the artifact store, then run again",
        )

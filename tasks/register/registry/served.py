"""The model as MLflow loads it: images in, classes and probabilities out, by the code that fills the lake."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from storage.recipe import read_recipe
from tasks.encoder.layers import open_layers
from tasks.encoder.pack import open_images
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.picture import explain
from tasks.encoder.runtimes.exported_images import check_exported, open_exported_images
from tasks.heads.answers import apply_thresholds, is_multi_label, name_labels, predict_classes
from tasks.heads.files import load_head
from tasks.heads.heads import Floats
from tasks.register.registry.request_images import RequestError, read_request_image

GPU = Path("/dev/nvidiactl")


class ImageClassifier(PythonModel):
    """Classifies encoded images (JPEG, PNG, ...), given as bytes, as base64 text or as data URIs."""

    _budget: Budget = DEFAULT

    def load_context(self, context: PythonModelContext) -> None:
        """Open the backbone and the head; without torch, unless there may be a GPU or the backbone needs it."""
        backbone = Path(context.artifacts["backbone"])
        config = context.model_config
        self._budget = _read_budget(config)
        exported = context.artifacts.get("exported")
        if exported and not GPU.exists():
            model = check_exported(Path(exported), config["exported_sha256"])
            self._embed = open_exported_images(backbone, model, config["batch"], config["views"], self._budget)
        else:
            self._embed = open_images(backbone, config["batch"], config["views"], self._budget)
        self._transform = read_recipe((backbone / "recipe.json").read_text(encoding="utf-8")).transform
        self._head = load_head(Path(context.artifacts["head"]), backbone, open_layers)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ANN401, ARG002 - MLflow's signature
        """Return one row per image: its class, that class's probability, and the probability of every class.

        The class is "neither" if no probability reaches the head's threshold. A multi-label head returns, in place of
        class and probability, the list of classes whose probabilities reach their thresholds.

        An image that cannot be answered costs its own row only: if there are any, a column ``error`` says why, which is
        null for the others; the columns of these rows are null.
        """
        values = model_input["image"].tolist()
        images, errors = _read(values)
        try:
            answers = self._answer(list(images.values()))
        except Exception:
            broken = self._find_broken(images)
            if not broken:
                raise
            errors |= broken
            answers = self._answer([data for row, data in images.items() if row not in broken])
        if not errors:
            return answers
        rows = np.setdiff1d(np.arange(len(values)), list(errors))
        failed = answers.astype(object).set_axis(rows).reindex(range(len(values)))
        failed = failed.astype(object).where(failed.notna(), None)
        reasons = [errors.get(row) for row in range(len(values))]
        return failed.assign(error=pd.Series(reasons, dtype=object))  # objects: elsewhere null would become NaN

    def _find_broken(self, images: dict[int, bytes]) -> dict[int, str]:
        """Return why images cannot be decoded, by row."""
        broken = {}
        for row, data in images.items():
            try:
                decode(data, self._transform, budget=self._budget)
            except Exception as error:  # noqa: BLE001 - broken pixels raise anything; the row's answer says it
                broken[row] = f"row {row}: {explain(error)}"
        return broken

    def _answer(self, images: list[bytes]) -> pd.DataFrame:
        head = self._head
        empty: Floats = np.empty((0, len(head.classes)))
        features = self._embed(images) if images else np.empty((0, 1), np.float32)
        probabilities = head.probabilities(features) if images else empty
        table = [dict(zip(head.classes, map(float, row), strict=True)) for row in probabilities]
        if is_multi_label(head):
            labels = name_labels(head.classes, apply_thresholds(head, probabilities)) if images else []
            return pd.DataFrame({"classes": labels, "probabilities": table})
        names = predict_classes(head, features, probabilities).tolist() if images else []
        largest = probabilities.max(axis=1) if images else []
        return pd.DataFrame({"class": names, "probability": largest, "probabilities": table})


def _read_budget(config: Mapping[str, Any]) -> Budget:
    """Read what decoding one image may take; the configuration of earlier releases does not say it."""
    prefix = "budget_"
    return Budget(**{name.removeprefix(prefix): most for name, most in config.items() if name.startswith(prefix)})


def _read(values: list[object]) -> tuple[dict[int, bytes], dict[int, str]]:
    """Return the images of a request, and why its other values are none, by row."""
    images, errors = dict[int, bytes](), dict[int, str]()
    for row, value in enumerate(values):
        try:
            images[row] = read_request_image(value)
        except RequestError as error:
            errors[row] = f"row {row}: {error}"
    return images, errors


mlflow.models.set_model(ImageClassifier())

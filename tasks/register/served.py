"""The model as MLflow loads it: images in, classes and probabilities out, by the code that fills the lake."""

import base64
import binascii
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from storage.heads import load_head


class ImageClassifier(PythonModel):
    """Classifies encoded images (JPEG, PNG, ...), given as bytes or as their base64 text."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the backbone by the function that the model's config names, and the head."""
        open_packed, backbone = resolve_name(context.model_config["embedder"]), Path(context.artifacts["backbone"])
        self._embed = open_packed(backbone, context.model_config["batch"])
        self._head = load_head(Path(context.artifacts["head"]), backbone)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ANN401, ARG002 - MLflow's signature
        """Give a row an image: class, its probability, and the probability of every class."""
        images = [_to_bytes(value) for value in model_input["image"]]
        probabilities = self._head.probabilities(self._embed(images))
        best = probabilities.argmax(axis=1)
        return pd.DataFrame(
            {
                "class": [self._head.classes[index] for index in best],
                "probability": probabilities.max(axis=1),
                "probabilities": [dict(zip(self._head.classes, map(float, row), strict=True)) for row in probabilities],
            }
        )


def _to_bytes(value: bytes | str) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    try:  # no image format consists of base64's letters alone
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return bytes(value)


mlflow.models.set_model(ImageClassifier())

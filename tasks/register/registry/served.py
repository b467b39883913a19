"""The model as MLflow loads it: images in, classes and probabilities out, by the code that fills the lake."""

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from tasks.encoder.layers import open_layers
from tasks.encoder.pack import open_images
from tasks.heads.answers import apply_thresholds, is_multi_label, name_labels, predict_classes
from tasks.heads.files import load_head


class ImageClassifier(PythonModel):
    """Classifies encoded images (JPEG, PNG, ...), given as bytes or as their base64 text."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the backbone and the head."""
        backbone = Path(context.artifacts["backbone"])
        self._embed = open_images(backbone, context.model_config["batch"], context.model_config["views"])
        self._head = load_head(Path(context.artifacts["head"]), backbone, open_layers)

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ANN401, ARG002 - MLflow's signature
        """Return one row per image: its class, that class's probability, and the probability of every class.

        The class is "neither" if no probability reaches the head's threshold. A multi-label head returns, in place of
        class and probability, the list of classes whose probabilities reach their thresholds.
        """
        head = self._head
        probabilities = head.probabilities(self._embed([_to_bytes(value) for value in model_input["image"]]))
        table = [dict(zip(head.classes, map(float, row), strict=True)) for row in probabilities]
        if is_multi_label(head):
            labels = name_labels(head.classes, apply_thresholds(head, probabilities))
            return pd.DataFrame({"classes": labels, "probabilities": table})
        names = predict_classes(head, probabilities).tolist()
        return pd.DataFrame({"class": names, "probability": probabilities.max(axis=1), "probabilities": table})


def _to_bytes(value: bytes | str) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    try:  # no image format consists of base64 characters only
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return bytes(value)


mlflow.models.set_model(ImageClassifier())

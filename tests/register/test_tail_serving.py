"""A tail, from images to a served model and through the gate."""

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

from flows.pipeline import pipeline
from flows.settings import RunSettings
from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.names import LabelSetName, SourceName
from storage.queries.lineage import trace
from storage.sources.copies import find_copies
from storage.sources.open_image import open_image
from storage.tables.features import read_features
from storage.tables.models import list_predictable
from storage.tables.trainings import find_training
from tasks.encoder.layers import open_layers
from tasks.heads.load import read_head
from tasks.register.gate.compare import compare_with_champion
from tasks.register.settings import GateSettings
from tasks.train.settings import TrainSettings
from tasks.train.train import TrainingData, train_head

EMBED = {"cut": "blocks.5", "pooling": "flatten", "crop": 64, "resize": 64}
TRAIN = {"heads": ["tail"], "l2": [0.1], "tail": {"epochs": 1}}


def test_a_tail_is_served_as_it_was_measured_and_the_next_one_is_compared_with_it(
    photos: Path,
    home: Path,
) -> None:
    settings = {"source": photos, "home": home, "embed": EMBED, "train": TRAIN}
    first, again = (pipeline(RunSettings.model_validate(settings)).to_json() for _ in range(2))
    assert (first["backbone_calls"], again["backbone_calls"]) == (60, 0)
    assert (first["trained"], again["trained"]) == (True, False)
    assert first["model"]["alias"] == "champion"
    place = open_home(home)
    with read_lake(place) as lake:
        training = find_training(lake, first["training"])
        assert training
        assert training.kind == "tail"
        ids = list_predictable(lake, [SourceName("photos")], training.recipe_id)[::10]
        expected = read_head(place, training, open_layers).probabilities(read_features(lake, training.recipe_id, ids))
        copies = find_copies(lake, ids)
        images = [open_image(*copy) for image_id in ids for copy in copies[image_id]]
        assert lake.value("SELECT count(*) FROM predictions WHERE version = 1") == 60
        assert trace(lake, "photos", 1)["recipe_id"] == training.recipe_id
    model = find_model(home)
    answers = mlflow.pyfunc.load_model(str(model)).predict(pd.DataFrame({"image": images}))["probabilities"]
    served = np.array([list(answer.values()) for answer in answers])
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-5)
    files = {path.suffix for path in (model / "artifacts").rglob("*") if path.is_file()}
    assert files - {".onnx"} == {".safetensors", ".json", ".pth"}  # the head with its layers, the recipe, the backbone
    assert json.loads((model / "artifacts" / training.recipe_id / "recipe.json").read_text())["cut"] == "blocks.5"
    other = TrainSettings.model_validate({**TRAIN, "seed": 1})
    second = train_head(
        place, TrainingData(LabelSetName("photos"), training.recipe_id), other, datetime.now(UTC)
    ).training
    with read_lake(place) as lake:
        assert (
            "accuracy"
            in compare_with_champion(place, lake, second, training.training_id, GateSettings(min_images=1)).reason
        )


def find_model(home: Path) -> Path:
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    version = client.get_model_version("photos", "1")
    logged = client.get_logged_model(str(version.source).removeprefix("models:/"))
    return Path(unquote(urlparse(logged.artifact_location).path))

"""A tail from images to a served model, and against another one at the gate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.pipeline import pipeline
from flows.settings import RunSettings
from storage.attach import read_lake
from storage.features import read_features
from storage.files import find_copies
from storage.lineage import trace
from storage.paths import open_home
from storage.trainings import find_training, list_predictable, read_head

EMBED = {"cut": "blocks.5", "pooling": "flatten", "crop": 64, "resize": 64}
Pipeline = Callable[..., dict[str, Any]]


@pytest.fixture
def tune(prefect_api: str, photos: Path, home: Path) -> Pipeline:  # noqa: ARG001 - the flows run in its harness
    """The pipeline over the embedded backbone, training a tail; keywords are the tail's settings."""

    def tune(**tail: object) -> dict[str, Any]:
        chosen = {"heads": ["tail"], "l2": [0.1], "tail": {"epochs": 2, **tail}}
        settings = {"source": photos, "home": home, "embed": EMBED, "train": chosen}
        return pipeline(RunSettings.model_validate(settings)).to_json()

    return tune


def test_a_tail_is_served_as_it_was_measured_and_the_next_one_is_judged_against_it(tune: Pipeline, home: Path) -> None:
    first, again, second = tune(), tune(), tune(learning_rates=[1e-3])
    assert (first["backbone_calls"], again["backbone_calls"], second["backbone_calls"]) == (60, 0, 0)
    assert (first["trained"], again["trained"], second["trained"]) == (True, False, True)
    assert first["model"]["alias"] == "champion"
    assert "accuracy" in second["model"]["gate"]
    with read_lake(open_home(home)) as lake:
        training = find_training(lake, first["training"])
        assert training
        assert training.settings["chosen_head"] == "tail"
        image_ids = list_predictable(lake, "photos", training.recipe_id)[::10]
        expected = read_head(open_home(home), training).probabilities(
            read_features(lake, training.recipe_id, image_ids)
        )
        images = [
            (Path(root) / path).read_bytes() for image_id in image_ids for root, path in find_copies(lake, image_id)
        ]
        assert lake.value("SELECT count(*) FROM predictions WHERE version = 1") == 60
        assert trace(lake, "photos", 1)["recipe_id"] == training.recipe_id
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    version = MlflowClient(uri, uri).get_model_version("photos", "1")
    logged = MlflowClient(uri, uri).get_logged_model(str(version.source).removeprefix("models:/"))
    place = Path(unquote(urlparse(logged.artifact_location).path))
    answers = mlflow.pyfunc.load_model(str(place)).predict(pd.DataFrame({"image": images}))["probabilities"]
    served = np.array([list(answer.values()) for answer in answers])
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-5)
    assert {path.suffix for path in (place / "artifacts").rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".json",
        ".pth",
    }
    assert json.loads((place / "artifacts" / training.recipe_id / "recipe.json").read_text())["cut"] == "blocks.5"

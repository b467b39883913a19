"""Views, from images to a served model that averages over them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.sources.copies import find_copies
from storage.sources.open_image import open_image
from storage.tables.models import list_predictable
from storage.tables.trainings import find_training
from tasks.encoder.layers import open_layers
from tasks.heads.load import read_head, read_head_inputs
from tests.encoder.test_decode import encode, photo

MOST = 1_000_000


def test_a_model_trains_on_views_and_averages_over_them(
    first_report: dict[str, Any], run: Callable[..., dict[str, Any]], home: Path
) -> None:
    beside = run(embed={"views": 2})
    assert beside["training"] != first_report["training"]
    averaged = run(embed={"views": 2, "max_bytes": MOST}, train={"average_views": True})
    assert averaged["backbone_calls"] == 0
    place = open_home(home)
    with read_lake(place) as lake:
        training = find_training(lake, averaged["training"])
        assert training
        assert len(training.averaged) == 2
        image_ids = list_predictable(lake, [SourceName("photos")], training.recipe_id)[:5]
        asked, copies = read_head_inputs(lake, training, image_ids), find_copies(lake, image_ids)
        said = lake.rows("SELECT image_id::VARCHAR, probability FROM predictions WHERE version = 3")
    head = read_head(place, training, open_layers)
    parts = [replace(head, views=1).logits(part) for part in np.split(asked, 3, axis=1)]
    assert head.logits(asked) == pytest.approx(np.mean(parts, axis=0))
    expected = head.probabilities(asked)
    recorded: dict[str, float] = dict(said)
    assert [recorded[each] for each in image_ids] == pytest.approx(expected.max(axis=1), rel=1e-5)
    images = [open_image(*copies[image_id][0]) for image_id in image_ids]
    model = mlflow.pyfunc.load_model(str(find_model(home)))
    served = model.predict(pd.DataFrame({"image": images}))["probabilities"]
    assert np.array([list(answer.values()) for answer in served]) == pytest.approx(expected, abs=1e-5)
    large = encode(photo(900, 900), "PNG")
    first, second = model.predict(pd.DataFrame({"image": [images[0], large]}))["error"]
    assert first is None
    assert "embed.max_bytes allows 1 MB" in second  # the budget of its run


def find_model(home: Path) -> Path:
    uri = f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    source = str(client.get_model_version("photos", "3").source)
    return Path(unquote(urlparse(client.get_logged_model(source.removeprefix("models:/")).artifact_location).path))

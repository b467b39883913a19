"""A request to a served model, through MLflow's own parsing, without a server: each row is answered by itself."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc.model import PythonModelContext
from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json
from mlflow.types import ColSpec, DataType, Schema

from storage.recipe import Transform
from storage.vectors.feature_file import Matrix
from tasks.encoder.pixels.budget import DEFAULT, Budget
from tasks.encoder.pixels.decode import decode
from tasks.heads.heads import Head
from tasks.register.registry import served
from tasks.register.registry.package import ServedEncoder
from tasks.register.registry.served import ImageClassifier
from tests.embed.test_pipeline import RECIPE
from tests.encoder.test_decode import encode, photo

SCHEMA = Schema([ColSpec(DataType.string, "image")])
TRANSFORM = Transform(8, (8, 8), squash=True, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
IMAGE = encode(photo(30, 40), "JPEG")
TEXT = base64.b64encode(IMAGE).decode()
NO_IMAGE = base64.b64encode(b"no image").decode()
VALUES = [TEXT, NO_IMAGE, f"data:image/jpeg;base64,{TEXT}", "", None, "a name.jpg", "QUJD"]
REASONS = {1: "not an image", 3: "image is empty", 4: "image is null", 5: "not base64", 6: "not an image"}


def embed(images: Sequence[bytes]) -> Matrix:
    return np.stack([decode(data, TRANSFORM).reshape(-1)[:5] for data in images]).astype(np.float32)


@pytest.fixture(params=[(), (0.5, 0.5)], ids=["single", "multi-label"])
def model(request: pytest.FixtureRequest) -> ImageClassifier:
    """A model whose vectors are pixels."""
    classifier = ImageClassifier()
    weights, bias = np.arange(10.0).reshape(5, 2) / 1000, np.zeros(2)
    classifier._head = Head(("cat", "dog"), np.zeros(5), np.ones(5), weights, bias, thresholds=request.param)
    classifier._embed, classifier._transform = embed, TRANSFORM
    return classifier


@pytest.mark.parametrize(
    "limits", [{}, {"budget_bytes": 900_000_000, "budget_seconds": 20.0, "budget_together": 10**10}]
)
def test_a_model_decodes_within_the_budget_of_its_run_and_by_default_as_models_of_earlier_releases(
    limits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Budget]()
    monkeypatch.setattr(served, "open_images", lambda *arguments: opened.append(arguments[-1]))
    monkeypatch.setattr(served, "load_head", lambda *_: None)
    (tmp_path / "recipe.json").write_text(RECIPE.text)
    classifier, artifacts = ImageClassifier(), {"backbone": str(tmp_path), "head": str(tmp_path)}
    config = {"batch": None, "views": 1, **limits}
    classifier.load_context(PythonModelContext(artifacts, config))  # type: ignore[no-untyped-call]
    budget = Budget(900_000_000, 20.0, 10**10) if limits else DEFAULT
    assert opened == [classifier._budget] == [budget]
    made = ServedEncoder(tmp_path, None, 1, budget).to_config()
    assert {name: made[name] for name in limits} == limits


def ask(model: ImageClassifier, body: dict[str, Any]) -> list[dict[str, Any]]:
    parsed = infer_and_parse_data(json.loads(json.dumps(body)), SCHEMA)
    answer = model.predict(None, _enforce_schema(parsed, SCHEMA))  # type: ignore[arg-type]
    to = io.StringIO()
    predictions_to_json(answer, to)  # type: ignore[no-untyped-call]
    return list(json.loads(to.getvalue(), parse_constant=pytest.fail)["predictions"])


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"image": value} for value in VALUES]},
        {"dataframe_split": {"columns": ["image"], "data": [[value] for value in VALUES]}},
        {"inputs": {"image": VALUES}},
        {"instances": [{"image": value} for value in VALUES]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_each_row_gets_its_own_answer_or_its_own_reason(model: ImageClassifier, body: dict[str, Any]) -> None:
    answers = ask(model, body)
    assert len(answers) == len(VALUES)
    (good,) = ask(model, {"dataframe_records": [{"image": TEXT}]})
    assert "error" not in good
    for row, answer in enumerate(answers):
        if row not in REASONS:
            assert answer.pop("error") is None
            assert answer.pop("probabilities") == pytest.approx(good["probabilities"])
            if "probability" in answer:
                assert answer.pop("probability") == pytest.approx(good["probability"])
            assert all(good[column] == value for column, value in answer.items())
            continue
        assert answer["error"].startswith(f"row {row}: ")
        assert REASONS[row] in answer["error"]
        assert {answer[column] for column in good} == {None}


def test_a_request_without_any_image_gets_a_reason_for_each_row(model: ImageClassifier) -> None:
    answers = ask(model, {"dataframe_records": [{"image": ""}, {"image": None}]})
    assert [answer["error"].split(":")[0] for answer in answers] == ["row 0", "row 1"]


def test_bytes_are_understood_as_they_always_were(model: ImageClassifier) -> None:
    table = _enforce_schema(pd.DataFrame({"image": [IMAGE, TEXT.encode()]}), SCHEMA)
    answers = model.predict(None, table)  # type: ignore[arg-type]
    assert "error" not in answers
    assert answers["probabilities"][0] == answers["probabilities"][1]


def test_an_error_that_is_no_image_s_is_not_hidden(model: ImageClassifier) -> None:
    def fail(_: Sequence[bytes]) -> Matrix:
        raise MemoryError(str(Path()))

    model._embed = fail
    with pytest.raises(MemoryError):
        ask(model, {"dataframe_records": [{"image": TEXT}]})

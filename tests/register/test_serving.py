"""The served model gives the probabilities of the lake's features over HTTP, and its MLflow run names its origin."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import Model
from PIL import Image

from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.names import SourceName
from storage.sources.copies import find_copies
from storage.sources.open_image import open_image
from storage.tables.features import read_features
from storage.tables.models import list_predictable
from storage.tables.recipes import get_recipe
from storage.tables.trainings import Training, find_training, head_path
from tasks.heads.files import load_head
from tasks.heads.heads import Floats
from tests.pictures import write_folder
from tests.servers import environment, model_server, request

CLASSES = ["blue", "green", "red"]
LOAD_ALONE = """
import sys, json, base64
sys.path = [path for path in sys.path if path != {project!r}]
import mlflow, pandas
model = mlflow.pyfunc.load_model({model!r})
answer = model.predict(pandas.DataFrame({{"image": [base64.b64decode({image!r})]}}))
ours = [module for name, module in sys.modules.items() if name.startswith("frostline_model_")]
assert not any(name.split(".")[0] in ("storage", "tasks", "flows") for name in sys.modules)
print(json.dumps({{
    "probabilities": list(answer["probabilities"][0].values()),
    "files": [m.__file__ for m in ours], "torch": "torch" in sys.modules,
}}))
"""


LOAD_BOTH = """
import sys, json, pathlib
import tasks, storage, flows
import mlflow, pandas
models = [mlflow.pyfunc.load_model(path) for path in sys.argv[1:]]
image = pandas.DataFrame({"image": [pathlib.Path("image").read_bytes()]})
answers = [list(model.predict(image)["probabilities"][0].values()) for model in models]
assert tasks.OWN and storage.OWN and flows.OWN
packages = {name.split(".")[0] for name in sys.modules if name.startswith("frostline_model_")}
print(json.dumps({"probabilities": answers, "packages": len(packages)}))
"""
LOAD_WITH_REQUIREMENTS = """
import json, pathlib, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
folder, image = map(pathlib.Path, sys.argv[1:])
normalize = lambda name: re.sub("[-_.]+", "-", name).lower()
waiting = [line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
allowed = set()
while waiting:
    name = normalize(waiting.pop())
    if name not in allowed:
        allowed.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        waiting += [re.match("[A-Za-z0-9._-]+", line)[0] for line in lines if "extra ==" not in line]
refused = {top for top, names in packages_distributions().items() if not allowed & set(map(normalize, names))}
assert "duckdb" in refused and "prefect" in refused
class Hide(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in refused else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hide
import mlflow, pandas
model = mlflow.pyfunc.load_model(str(folder))
answer = model.predict(pandas.DataFrame({"image": [image.read_bytes()]}))
assert "simplejpeg" in sys.modules
print(json.dumps(answer["probabilities"][0]))
"""


@dataclass(frozen=True)
class Example:
    """A model registered by a run with the real backbone, and its images with their expected probabilities."""

    home: Home
    client: MlflowClient
    training: Training
    run: Run
    model: Path
    images: tuple[bytes, ...]
    image_ids: tuple[str, ...]
    expected: Floats

    @property
    def uri(self) -> str:
        return str(self.client.tracking_uri)


@pytest.fixture(scope="module")
def registered(
    tmp_path_factory: pytest.TempPathFactory,
    registry_template: Path,
) -> Example:
    """The pipeline, run once on 60 images with the embedded backbone."""
    from flows.pipeline import pipeline
    from flows.settings import RunSettings

    home = Home(tmp_path_factory.mktemp("served") / "home")
    home.registry.mkdir(parents=True)
    (home.registry / "mlflow.db").write_bytes(registry_template.read_bytes())
    report = pipeline(RunSettings(source=write_folder(home.root.parent / "photos"), home=home.root))
    uri = f"sqlite:///{home.registry / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    run = client.get_run(report.registered.run_id)
    with read_lake(home) as lake:
        training = find_training(lake, report.trained.training.training_id)
        assert training
        image_ids = list_predictable(lake, [SourceName("photos")], training.recipe_id)[::10]
        features = read_features(lake, training.recipe_id, image_ids)
        found = find_copies(lake, image_ids)
        copies = [found[image_id][0] for image_id in image_ids]
    expected = load_head(head_path(home, training.training_id)).probabilities(features)
    images = tuple(open_image(*copy) for copy in copies)
    version = client.get_model_version_by_alias("photos", "champion")
    place = client.get_logged_model(str(version.source).removeprefix("models:/")).artifact_location
    model = Path(unquote(urlparse(place).path))
    return Example(home, client, training, run, model, images, tuple(image_ids), expected)


@pytest.fixture(scope="module")
def served(registered: Example, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of ``mlflow models serve`` for the champion."""
    folder = tmp_path_factory.mktemp("serving")
    with model_server(folder, registered.uri, "models:/photos@champion") as server:
        server.wait()
        yield server.uri


def ask(uri: str, images: Sequence[bytes]) -> list[dict[str, object]]:
    records = [{"image": base64.b64encode(image).decode()} for image in images]
    return list(request(f"{uri}/invocations", {"dataframe_records": records})["predictions"])


def to_array(answers: Sequence[dict[str, object]]) -> Floats:
    tables = [answer["probabilities"] for answer in answers]
    return np.array([[table[name] for name in CLASSES] for table in tables if isinstance(table, dict)])


def test_many_images_in_one_request_get_the_lakes_probabilities(registered: Example, served: str) -> None:
    answers = ask(served, registered.images)
    assert len(answers) == 6
    np.testing.assert_allclose(to_array(answers), registered.expected, rtol=0, atol=1e-5)


def test_images_in_single_requests_get_the_lakes_probabilities(registered: Example, served: str) -> None:
    answers = [answer for image in registered.images for answer in ask(served, [image])]
    np.testing.assert_allclose(to_array(answers), registered.expected, rtol=0, atol=1e-5)


def test_the_served_class_equals_the_one_in_predictions(registered: Example, served: str) -> None:
    with read_lake(registered.home) as lake:
        rows = lake.rows("SELECT image_id::VARCHAR, class, probability FROM latest_predictions WHERE name = 'photos'")
    known = {image_id: (name, probability) for image_id, name, probability in rows}
    assert len(known) == 60
    for image_id, answer in zip(registered.image_ids, ask(served, registered.images), strict=True):
        assert (answer["class"], answer["probability"]) == (
            known[image_id][0],
            pytest.approx(known[image_id][1], abs=1e-5),
        )


def test_an_image_larger_than_the_crop_is_served(served: str, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("CMYK", (640, 480), (10, 200, 200, 0)).save(path)
    (answer,) = ask(served, [path.read_bytes()])
    assert answer["class"] in CLASSES
    assert to_array([answer]).sum() == pytest.approx(1)


def test_each_row_of_a_request_gets_its_own_answer_or_its_own_reason(registered: Example, served: str) -> None:
    image = registered.images[0]
    text = base64.b64encode(image).decode()
    values = [
        text,
        base64.b64encode(b"no image at all").decode(),
        f"data:image/png;base64,{text}",
        base64.urlsafe_b64encode(image).decode().rstrip("="),
        "",
        None,
        "no base64, either",
        base64.b64encode(image[: len(image) // 2]).decode(),
    ]
    for body in (
        {"dataframe_records": [{"image": value} for value in values]},
        {"dataframe_split": {"columns": ["image"], "data": [[value] for value in values]}},
        {"inputs": {"image": values}},
        {"instances": [{"image": value} for value in values]},
    ):
        answers = list(request(f"{served}/invocations", body)["predictions"])
        good = [answers[row] for row in (0, 2, 3)]
        np.testing.assert_allclose(to_array(good), registered.expected[[0, 0, 0]], rtol=0, atol=1e-5)
        assert [answer["error"] for answer in good] == [None] * 3
        errors = {row: str(answers[row]["error"]) for row in (1, 4, 5, 6, 7)}
        reasons = {1: "not an image", 4: "empty", 5: "null", 6: "not base64", 7: "truncated"}
        for row, reason in reasons.items():
            assert errors[row].startswith(f"row {row}: ")
            assert reason in errors[row]
            assert answers[row]["class"] is answers[row]["probability"] is answers[row]["probabilities"] is None


def test_a_request_of_good_images_has_the_columns_that_it_always_had(registered: Example, served: str) -> None:
    assert {tuple(answer) for answer in ask(served, registered.images)} == {("class", "probability", "probabilities")}


def test_the_model_has_a_signature_an_example_its_requirements_and_no_pickle(registered: Example) -> None:
    model = Model.load(str(registered.model))
    assert model.signature.inputs.to_dict() == [{"type": "string", "name": "image", "required": True}]
    columns = {column["name"]: column["required"] for column in model.signature.outputs.to_dict()}
    assert columns == {"class": True, "probability": True, "probabilities": True, "error": False}
    assert model.saved_input_example_info
    assert (registered.model / model.saved_input_example_info["artifact_path"]).stat().st_size > 0
    wanted = {line.split("==")[0] for line in (registered.model / "requirements.txt").read_text().splitlines()}
    assert {"mlflow", "torch", "timm", "pillow", "safetensors"} <= wanted
    names = [path.name for path in registered.model.rglob("*") if path.is_file()]
    assert [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".joblib"))] == []
    assert "__pycache__" not in {path.name for path in registered.model.rglob("*")}


def test_the_model_works_without_this_project_on_the_path(registered: Example, tmp_path: Path) -> None:
    project = str(Path(__file__).parents[2])
    image = base64.b64encode(registered.images[0]).decode()
    script = LOAD_ALONE.format(project=project, model=str(registered.model), image=image)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(said["probabilities"], registered.expected[0], rtol=0, atol=1e-5)
    assert said["files"]
    assert [file for file in said["files"] if not Path(file).is_relative_to(registered.model / "code")] == []
    exported = (registered.model / "artifacts" / "model.onnx").exists() and not Path("/dev/nvidiactl").exists()
    assert said["torch"] is not exported


def test_a_model_in_a_local_registry_shares_the_files_of_its_backbone(registered: Example) -> None:
    packed = registered.home.backbones / registered.training.recipe_id
    copies = registered.model / "artifacts" / packed.name
    files = [file.name for file in packed.iterdir()]
    assert len(files) == 2
    assert all((copies / name).samefile(packed / name) for name in files)


def test_two_versions_load_in_a_program_that_has_modules_of_our_names(registered: Example, tmp_path: Path) -> None:
    for name in ("tasks", "storage", "flows"):
        (tmp_path / f"{name}.py").write_text("OWN = True\n")
    other = copy_with_other_code(registered.model, tmp_path / "other")
    (tmp_path / "image").write_bytes(registered.images[0])
    done = subprocess.run(
        [sys.executable, "-c", LOAD_BOTH, registered.model, other],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    for probabilities in loaded["probabilities"]:
        np.testing.assert_allclose(probabilities, registered.expected[0], rtol=0, atol=1e-5)
    assert loaded["packages"] == 2


def copy_with_other_code(model: Path, folder: Path) -> Path:
    """Copy a model as a version whose code is another."""
    shutil.copytree(model, folder)
    (package,) = (folder / "code").iterdir()
    name = "frostline_model_0123456789abcdef"
    package.rename(package.with_name(name))
    for path in folder.rglob("*.py"):
        path.write_text(path.read_text().replace(package.name, name))
    return folder


def test_the_model_needs_no_library_but_its_requirements(registered: Example, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (10, 200, 30)).save(tmp_path / "image", "JPEG")
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD_WITH_REQUIREMENTS, registered.model, tmp_path / "image"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == set(CLASSES)


def test_the_run_has_its_parameters_and_metrics(registered: Example) -> None:
    data, training = registered.run.data, registered.training
    assert data.metrics == pytest.approx(training.metrics)
    assert {"accuracy", "accuracy_low", "accuracy_high", "calibration_error", "temperature"} <= set(data.metrics)
    assert data.params["recipe_id"] == training.recipe_id
    assert data.params["snapshot"] == str(training.snapshot)
    assert data.params["train.seed"] == "0"
    assert sum(int(data.params[f"images.{split}"]) for split in ("train", "validation", "test")) == 60


def test_the_run_has_the_same_recipe_as_the_lake(registered: Example) -> None:
    with read_lake(registered.home) as lake:
        assert read_artifact(registered, "recipe.json").decode() == get_recipe(lake, registered.training.recipe_id).text
        assert read_artifact(registered, "recipe.json").decode() == lake.value("SELECT recipe FROM recipes")


def test_the_run_has_the_table_of_classes_and_the_evaluation_with_plots_and_page(
    registered: Example,
) -> None:
    table = json.loads(read_artifact(registered, "classes.json"))
    assert table["columns"] == ["class", "precision", "recall", "recall_low", "recall_high", "f1", "images"]
    assert [row[0] for row in table["data"]] == CLASSES
    evaluation = json.loads(read_artifact(registered, "evaluation.json"))
    assert sum(map(sum, evaluation["confusion"])) == int(registered.run.data.params["images.test"])
    assert set(evaluation["splits"]) == set(CLASSES)
    for picture in ("confusion.png", "reliability.png"):
        assert read_artifact(registered, picture).startswith(b"\x89PNG\r\n\x1a\n")
    assert b"<h1>photos</h1>" in read_artifact(registered, "evaluation.html")


def test_the_run_names_its_data_by_lake_snapshot_and_training(registered: Example) -> None:
    assert registered.run.inputs
    (used,) = registered.run.inputs.dataset_inputs
    source = json.loads(used.dataset.source)
    assert (used.dataset.name, used.dataset.source_type) == ("photos", "ducklake")
    assert source == {
        "catalog": f"ducklake:sqlite:{registered.home.catalog}",
        "snapshot": registered.training.snapshot,
        "training_id": registered.training.training_id,
    }
    assert [tag.value for tag in used.tags] == ["training"]


def read_artifact(registered: Example, name: str) -> bytes:
    return Path(registered.client.download_artifacts(registered.run.info.run_id, name)).read_bytes()

"""Make the home of the second release that ``test_second_lake.py`` opens.

Run it once, in a checkout of commit 2686d7f: ``PYTHONPATH=. python make_second_lake.py second_lake.tar.xz``.
It uses that release's own command line and real networks. They are tiny and have random weights. One home holds two
models of the same images: ``photos`` is a linear head behind a whole network with batch norms, and ``photos-tail`` is
a tail, which trains the last block of another network. The first has two versions, since an image is added between two
runs. One file is no image.

Everything is made in ``/tmp/frostline-second``, because MLflow stores absolute paths: a test that unpacks the archive
has to replace that prefix in ``mlflow.db``. ``expected.json`` in the archive holds the settings of the runs, their last
reports, and what the release's heads and models predict for some images.

The archive is no zip, as the canaries of both recipes and all copies of the weights are then packed only once.
"""

import contextlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path("/tmp/frostline-second")  # noqa: S108 - a path that names no one, and it ends up in the archive
RELEASE = ROOT / "release"
KEPT = ("expected.json", "photos", "weights", "home")
DROPPED = ("*/__pycache__/*", "*.lock", "*.sqlite-*", "home/mlflow/artifacts/*.png", "home/mlflow/artifacts/*.html")
PER_CLASS = 20
PREDICTED = ("blue/000.png", "blue/011.png", "green/003.png", "green/014.png", "red/005.png", "red/017.png")

IMAGES = {"crop": 32, "resize": 32, "dtype": "float32", "stored": "float32", "device": "cpu", "batch": 8}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "photos": {
        "embed": {"backbone": "timm/test_resnet", "weights": "weights/resnet.safetensors", **IMAGES},
        "train": {"l2": [1.0]},
    },
    "photos-tail": {
        "embed": {
            "backbone": "timm/test_convnext",
            "weights": "weights/convnext.safetensors",
            "cut": "stages.3.blocks.0",
            "pooling": "flatten",
            **IMAGES,
        },
        "train": {"heads": ["tail"], "l2": [0.1], "tail": {"epochs": 3, "batch": 8, "learning_rates": [0.001]}},
    },
}

PREDICT = """
import json, sys
from pathlib import Path
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
images = [Path(path).read_bytes() for path in sys.argv[2:]]
print(json.dumps(model.predict(pd.DataFrame({"image": images})).to_dict("records")))
"""


def main() -> None:
    """Run the pipeline in a folder of its own, record what its heads and models predict, and pack the folder."""
    archive = Path(sys.argv[1]).absolute()
    ROOT.mkdir()  # refuses to mix with what is there
    clone()
    reports = fill()
    (ROOT / "expected.json").write_text(json.dumps(describe(reports), indent=1))
    forget_host(ROOT / "home" / "catalog.sqlite")
    pack(archive)
    shutil.rmtree(ROOT)


def clone() -> None:
    """Copy the checkout to a neutral path: MLflow stores the path of the program and its git remote."""
    git = ["git", "-c", "advice.detachedHead=false"]
    subprocess.run([*git, "clone", "--quiet", Path.cwd(), RELEASE], check=True)
    subprocess.run([*git, "remote", "remove", "origin"], cwd=RELEASE, check=True)


def fill() -> dict[str, Any]:
    """Make photos, weights, and a home with both models; return the last report of each."""
    from tests.pictures import write_folder, write_image

    photos = write_folder(ROOT / "photos", PER_CLASS)
    (photos / "red" / "broken.png").write_bytes(b"no image")
    for backbone in ("resnet", "convnext"):
        write_weights(f"test_{backbone}", ROOT / "weights" / f"{backbone}.safetensors")
    run("photos")
    write_image(photos / "green" / "later.png", "green", 1800)
    return {name: run(name) for name in SETTINGS}


def write_weights(network: str, path: Path) -> None:
    """Write random weights with few different values, which pack well. The classifier is zero, as nothing uses it."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(network)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.get_classifier().weight)
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if tensor.ndim > 1 and tensor.any():
            step = 2.0 ** round(float(tensor.std().log2()))
            tensors[name] = (tensor / step).round().clamp(-2, 2) * step
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)


def run(name: str) -> dict[str, Any]:
    """Run the release's command line in a process of its own; return its report."""
    flags = ["--name", name, "--home", "home", "--json", *list_flags(SETTINGS[name])]
    command = [sys.executable, "-m", "flows.cli", "run", "photos", *flags]
    variables = {"PYTHONPATH": str(RELEASE), "PREFECT_HOME": str(ROOT / "prefect")}
    users = dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), "frostline")
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables, **users}, check=True, stdout=subprocess.PIPE, text=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def list_flags(settings: dict[str, Any], prefix: str = "--") -> Iterator[str]:
    """Write settings as flags; a list repeats its flag for each value."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from list_flags(value, f"{prefix}{name}.")
        else:
            for each in value if isinstance(value, list) else [value]:
                yield from (f"{prefix}{name.replace('_', '-')}", str(each))


def describe(reports: dict[str, Any]) -> dict[str, Any]:
    """Describe both models: the run's settings and report, the path of the model, and its answers."""
    return {
        "commit": subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=RELEASE, text=True).strip(),
        "root": str(ROOT),
        "models": {
            name: {
                "settings": {"name": name, **SETTINGS[name]},
                "report": report,
                "model": str(find_model(name, report["model"]["version"]).relative_to(ROOT)),
                "versions": list_versions(name),
                "answers": describe_answers(name, report),
            }
            for name, report in reports.items()
        },
    }


def list_versions(name: str) -> list[dict[str, Any]]:
    """List the versions of a model that the lake has."""
    from storage.attach import read_lake  # type: ignore[import-not-found]
    from storage.paths import open_home  # type: ignore[import-not-found]

    with read_lake(open_home(ROOT / "home")) as lake:
        versions: list[dict[str, Any]] = lake.dicts(
            """SELECT version, alias, run_id, training_id, recipe_id, heads.snapshot, code
               FROM models JOIN heads USING (training_id) WHERE name = ? ORDER BY version""",
            [name],
        )
        return versions


def describe_answers(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Predict by the head from stored features, and by the served model from the images."""
    from storage.attach import read_lake
    from storage.features import read_features  # type: ignore[import-not-found]
    from storage.paths import open_home
    from storage.trainings import find_training, read_head  # type: ignore[import-not-found]

    home = open_home(ROOT / "home")
    with read_lake(home) as lake:
        training = find_training(lake, report["training"])
        if training is None:
            raise LookupError(report["training"])
        known: dict[str, str] = dict(lake.rows("SELECT path, image_id::VARCHAR FROM files WHERE source = ?", [name]))
        head = read_head(home, training)
        said = head.probabilities(read_features(lake, training.recipe_id, [known[path] for path in PREDICTED]))
    served = predict(find_model(name, report["model"]["version"]), [ROOT / "photos" / path for path in PREDICTED])
    return [
        {
            "path": path,
            "image_id": known[path],
            "class": answer["class"],
            "head": dict(zip(head.classes, map(float, row), strict=True)),
            "served": answer["probabilities"],
        }
        for path, row, answer in zip(PREDICTED, said, served, strict=True)
    ]


def predict(model: Path, images: list[Path]) -> list[dict[str, Any]]:
    """Predict by a model in a process of its own."""
    command = [sys.executable, "-c", PREDICT, str(model), *map(str, images)]
    answers: list[dict[str, Any]] = json.loads(subprocess.check_output(command, cwd=ROOT))
    return answers


def find_model(name: str, version: int) -> Path:
    """Find the folder of a registered model."""
    from urllib.parse import unquote, urlparse

    from mlflow import MlflowClient

    uri = f"sqlite:///{ROOT / 'home' / 'mlflow' / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    source = str(client.get_model_version(name, str(version)).source)
    return Path(unquote(urlparse(client.get_logged_model(source.removeprefix("models:/")).artifact_location).path))


def forget_host(catalog: Path) -> None:
    """Replace this machine's name, which leases hold, in the lake's catalog."""
    host, other = f"@{platform.node()}/", "@frostline/"
    with contextlib.closing(sqlite3.connect(catalog)) as database:
        for table, column in list_columns(database):
            where = f'instr("{column}", ?) AND typeof("{column}") = \'text\''
            database.execute(
                f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE {where}', [host, other, host]
            )
        database.commit()
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def list_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """List the tables and columns of a database."""
    found = database.execute(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
    )
    return found.fetchall()


def pack(archive: Path) -> None:
    """Write the kept files, owned by nobody in particular."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for file in list_kept():
            packed.add(file, str(file.relative_to(ROOT)), filter=disown)


def disown(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove a file's owner and permissions."""
    return file.replace(uid=0, gid=0, uname="", gname="", mode=0o644, deep=False)


def list_kept() -> Iterator[Path]:
    """List the files to pack, in a fixed order."""
    for name in KEPT:
        for file in sorted((ROOT / name).rglob("*")) or [ROOT / name]:
            path = str(file.relative_to(ROOT))
            if file.is_file() and not any(fnmatchcase(path, pattern) for pattern in DROPPED):
                yield file


if __name__ == "__main__":
    main()

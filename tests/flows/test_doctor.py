"""The doctor: finds each way in which a lake can be broken, repairs it, and finds nothing wrong with a sound one."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.doctor import Outcome, examine
from storage.attach import open_lake, read_lake
from storage.catalog import list_live
from storage.paths import Home, open_home
from tests.counting import Tally

NOW = datetime.now(UTC)
STRANGER = "00000000-0000-0000-0000-00000000beef"


@pytest.fixture(scope="session")
def template(prefect_api: str, tmp_path_factory: pytest.TempPathFactory, registry_template: Path) -> Path:  # noqa: ARG001
    """A home after one run over photos, made once."""
    from flows.pipeline import pipeline
    from flows.settings import RunSettings
    from tests.counting import install
    from tests.pictures import write_folder

    folder = tmp_path_factory.mktemp("doctor")
    (folder / "home" / "mlflow").mkdir(parents=True)
    shutil.copy(registry_template, folder / "home" / "mlflow" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, Tally(folder / "calls"))
        pipeline(RunSettings(source=write_folder(folder / "photos"), home=folder / "home"))
    return folder / "home"


@pytest.fixture
def home(template: Path, tmp_path: Path, tally: Tally) -> Home:  # noqa: ARG001
    """A copy of it, to break."""
    return open_home(Path(shutil.copytree(template, tmp_path / "home")))


def write(sql: str) -> Callable[[Home], None]:
    def do(home: Home) -> None:
        with open_lake(home) as lake:
            lake.commit(lambda: lake.execute(sql))

    return do


def find_file(home: Home) -> Path:
    with read_lake(home) as lake:
        return home.data / next(file.path for file in list_live(lake) if file.table == "features")


def delete_file(home: Home) -> None:
    find_file(home).unlink()


def truncate(home: Home) -> None:
    os.truncate(find_file(home), 300)


def flip_bit(home: Home) -> None:
    file = find_file(home)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def leave_orphan(home: Home) -> None:
    for name in ("killed.unfinished", "killed.parquet"):
        file = find_file(home).with_name(name)
        file.write_bytes(b"half")
        os.utime(file, (0, 0))


def lose_head(home: Home) -> None:
    next(home.heads.glob("*/head.safetensors")).unlink()


def change_backbone(home: Home) -> None:
    file = next(home.backbones.glob("*/weights*"))
    file.write_bytes(file.read_bytes() + b"!")


ONE = "(SELECT min(image_id) FROM features)"
WAYS: dict[str, tuple[str, Callable[[Home], None]]] = {
    "deleted file": ("file", delete_file),
    "truncated file": ("file", truncate),
    "flipped bit": ("file", flip_bit),
    "dropped row": ("lost row", write(f"DELETE FROM features WHERE image_id = {ONE}")),
    "foreign row": (
        "foreign image",
        write(f"INSERT INTO features SELECT recipe_id, '{STRANGER}'::UUID, vector FROM features LIMIT 1"),
    ),
    "foreign label": ("foreign image", write(f"INSERT INTO labels VALUES ('photos', '{STRANGER}', 'red', 'x', now())")),
    "foreign file": ("foreign image", write(f"INSERT INTO files VALUES ('photos', 'x', 1, 1, NULL, '{STRANGER}')")),
    "foreign prediction": (
        "foreign image",
        write(f"INSERT INTO predictions VALUES ('photos', 1, '{STRANGER}', 'red', 1, now())"),
    ),
    "foreign recipe": (
        "foreign recipe",
        write("INSERT INTO features SELECT 'nobody', image_id, vector FROM features LIMIT 1"),
    ),
    "foreign training": (
        "foreign training",
        write("INSERT INTO training_sets SELECT 'nobody', image_id, class, split FROM training_sets LIMIT 1"),
    ),
    "duplicate": ("duplicate", write("INSERT INTO features SELECT * FROM features LIMIT 2")),
    "wrong length": ("length", write(f"UPDATE features SET vector = [1.0, 2.0] WHERE image_id = {ONE}")),
    "no number": (
        "numbers",
        write(f"UPDATE features SET vector = list_transform(vector, lambda x: 'nan'::FLOAT) WHERE image_id = {ONE}"),
    ),
    "stale lease": ("lease", write(f"INSERT INTO leases VALUES ('r', '{STRANGER}', '{STRANGER}', 'h', '2020-01-01')")),
    "orphan": ("orphan", leave_orphan),
    "lost head": ("head", lose_head),
    "changed backbone": ("backbone", change_backbone),
}


def checks(outcomes: list[Outcome]) -> set[str]:
    return {outcome.finding.check for outcome in outcomes}


def test_a_sound_lake_has_no_finding(home: Home) -> None:
    assert examine(home, NOW, deep=True) == []
    assert examine(open_home(home.root / "nothing"), NOW, deep=True, repair=True) == []


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_break_a_lake_is_found_and_repaired(home: Home, way: str) -> None:
    check, break_ = WAYS[way]
    break_(home)
    found = examine(home, NOW)
    assert checks(found) == {check}, found
    assert not any(outcome.repaired for outcome in found)
    mended = examine(home, NOW, repair=True)
    assert check in checks(mended)
    assert all(outcome.repaired for outcome in mended), mended
    assert examine(home, NOW, deep=True) == []

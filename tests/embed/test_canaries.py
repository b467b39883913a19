"""Promise 6: before a run writes, it verifies that this machine still computes the recipe's numbers."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import NumbersChangedError
from storage.lake.attach import read_lake
from storage.locations.home import open_home
from storage.names import SourceName
from storage.recipe import Recipe
from storage.tables.canaries import Canaries, find_canaries
from storage.vectors.feature_file import Matrix
from tasks.embed.checks.canaries import get_tolerance, make_probes
from tasks.embed.checks.check_canaries import verify_canaries
from tasks.encoder.embedder import Lanes
from tasks.encoder.pack import open_once
from tasks.encoder.pixels.decode import decode
from tasks.encoder.pixels.transform import Pixels
from tests.counting import Tally, install
from tests.embed.test_pipeline import RECIPE
from tests.first_run import copy_homes
from tests.pictures import write_folder, write_image

if TYPE_CHECKING:
    from flows.embed import Embedded

RUNTIMES = ("torch", "onnxruntime", "openvino")
Watched = Callable[..., "Embedded"]


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, "Embedded"]:
    """A folder with photos and a home whose features and canaries are made once, and the embedding's result."""
    from flows.embed import embed
    from flows.ingest import ingest
    from flows.settings import RunSettings

    folder = tmp_path_factory.mktemp("canaries")
    settings = RunSettings(source=write_folder(folder / "photos"), home=folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, Tally(folder / "backbone-calls"))
        patch.setattr("tasks.embed.step.verify_canaries", verify_canaries)
        ingest(settings)
        return folder, embed(settings)


@pytest.fixture
def first(template: tuple[Path, "Embedded"], photos: Path, home: Path) -> "Embedded":
    """The result of a first ``watched()``, with ``photos`` and ``home`` copied as it left them."""
    assert photos.parent == home.parent
    copy_homes(template[0], home.parent)
    return template[1]


@pytest.fixture
def watched(embed_photos: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The flows up to features, including the check of canaries, which the tally's tests skip."""
    monkeypatch.setattr("tasks.embed.step.verify_canaries", verify_canaries)
    return embed_photos


def change_numbers(monkeypatch: pytest.MonkeyPatch, change: Callable[[Matrix], Matrix]) -> None:
    """Make the backbone compute other numbers from now on, as another library or device might."""
    embed = Tally.embed
    monkeypatch.setattr(Tally, "embed", lambda self, pixels: change(embed(self, pixels)))
    open_once.cache_clear()


def canaries_of(home: Path, recipe_id: str) -> Canaries:
    with read_lake(open_home(home)) as lake:
        canaries = find_canaries(lake, recipe_id)
    assert canaries
    return canaries


def test_a_recipes_first_run_records_twelve_canaries_and_the_pace(watched: Watched, home: Path) -> None:
    done = watched()
    canaries = canaries_of(home, done.recipe_id)
    assert len(canaries.probes) == 12
    assert sum(probe.image is None for probe in canaries.probes) == 4
    assert canaries.vectors.shape == (12, 48)
    assert canaries.images_per_second > 0
    assert {"torch", "pillow", "device"} <= set(canaries.made_with)


@pytest.mark.usefixtures("first")
def test_a_run_with_the_same_numbers_continues(watched: Watched, photos: Path) -> None:
    write_image(photos / "red" / "new.png", "red", 500)
    done = watched()
    assert (done.computed, done.reused, done.failed) == (1, 60, 0)


@pytest.mark.parametrize(
    "change",
    [lambda vectors: vectors * np.float32(1.1), lambda vectors: vectors[:, ::-1], lambda vectors: vectors * np.nan],
)
def test_other_numbers_are_refused_before_anything_is_written(
    first: "Embedded",
    watched: Watched,
    photos: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Matrix], Matrix],
) -> None:
    write_image(photos / "red" / "new.png", "red", 500)
    change_numbers(monkeypatch, change)
    with pytest.raises(NumbersChangedError, match="--new-recipe"):
        watched()
    with read_lake(open_home(home)) as lake:
        assert lake.value("SELECT count(*) FROM features WHERE recipe_id = ?", [first.recipe_id]) == 60


@pytest.mark.usefixtures("first")
def test_the_refusal_names_the_library_that_changed(
    watched: Watched, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(photos / "red" / "new.png", "red", 500)
    change_numbers(monkeypatch, lambda vectors: vectors * 2)
    monkeypatch.setattr("tasks.embed.checks.canaries.version", lambda library: "9.9" if library == "timm" else "1")
    with pytest.raises(NumbersChangedError, match=r"timm \S+ -> 9\.9"):
        watched()


@pytest.mark.usefixtures("first")
def test_numbers_within_the_tolerance_pass(watched: Watched, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(photos / "red" / "new.png", "red", 500)
    change_numbers(monkeypatch, lambda vectors: vectors * np.float32(1 + get_tolerance(RECIPE) / 4))
    assert watched().computed == 1


def test_a_new_recipe_embeds_everything_again_beside_the_old_one_and_remains_in_use(
    first: "Embedded", watched: Watched, photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = first.recipe_id
    write_image(photos / "red" / "new.png", "red", 500)
    change_numbers(monkeypatch, lambda vectors: vectors * 2)
    renewed = watched(new_recipe=True)
    assert renewed.recipe_id != old
    assert renewed.computed == 61
    with read_lake(open_home(home)) as lake:
        counts = lake.rows("SELECT recipe_id, count(*) FROM features GROUP BY ALL")
    assert dict(counts) == {old: 60, renewed.recipe_id: 61}
    assert watched().recipe_id == renewed.recipe_id
    assert watched().throughput.images == 0


def test_canaries_whose_files_are_gone_are_skipped(
    first: "Embedded", watched: Watched, photos: Path, home: Path
) -> None:
    for path in list((photos / "blue").iterdir())[:12]:
        path.unlink()
    write_image(photos / "red" / "new.png", "red", 500)
    assert watched(ingest={"max_gone": 1}).recipe_id == first.recipe_id
    assert len(canaries_of(home, first.recipe_id).probes) == 12


def test_before_the_first_shard_plan_estimates_from_the_pace_of_the_canaries(
    watched: Watched, photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.operations.plan import make_plan
    from flows.settings import RunSettings

    def stop(*_: object, **__: object) -> None:
        raise OSError("the machine is shutting down")

    monkeypatch.setattr("tasks.embed.step.embed_shard", stop)
    with pytest.raises(OSError, match="shutting down"):
        watched()
    estimate = make_plan(RunSettings(source=photos, home=home)).to_json()["estimate"]
    assert estimate["seconds"] > 0
    assert estimate["bytes"] == 60 * 2 * 48


def test_a_compiled_backbone_that_computes_other_numbers_is_not_used(
    watched: Watched, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[bool] = []

    def open_backbone(*_: object, compiled: bool = False) -> tuple[Callable[[Pixels], Matrix], Lanes]:
        opened.append(compiled)
        tally = Tally(photos.parent / "other-calls")
        return (lambda pixels: -tally.embed(pixels)) if compiled else tally.embed, Lanes()

    monkeypatch.setattr(sys.modules["tasks.encoder.backbone.open_backbone"], "open_backbone", open_backbone)
    open_once.cache_clear()
    done = watched(embed={"compile": "on"})
    assert opened == [False, True, False]
    assert any("without compiling" in record.message for record in caplog.records)
    assert done.computed == 60


@pytest.mark.parametrize(("compiled_seconds", "expected"), [(0.0, [False, True]), (0.3, [False, True, False])])
def test_the_compiled_backbone_is_used_only_if_it_is_faster(
    watched: Watched, photos: Path, monkeypatch: pytest.MonkeyPatch, compiled_seconds: float, expected: list[bool]
) -> None:
    opened: list[bool] = []

    def open_backbone(*_: object, compiled: bool = False) -> tuple[Callable[[Pixels], Matrix], Lanes]:
        opened.append(compiled)
        return Tally(photos.parent / "other-calls", compiled_seconds if compiled else 0.1).embed, Lanes()

    monkeypatch.setattr(sys.modules["tasks.encoder.backbone.open_backbone"], "open_backbone", open_backbone)
    monkeypatch.setattr("tasks.embed.find_recipe.SECONDS_WORTH_COMPILING", 0)
    open_once.cache_clear()
    assert watched().computed == 60
    assert opened == expected


def test_the_same_probes_are_drawn_every_time_and_all_can_be_decoded() -> None:
    first, second = make_probes(), make_probes()
    assert [data for _, data in first] == [data for _, data in second]
    assert len({probe.name for probe, _ in first}) == 8
    for _, data in first:
        assert decode(data, RECIPE.transform).shape == (8, 8, 3)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format in ("PNG", "JPEG")


@pytest.mark.parametrize(("dtype", "low", "high"), [("float32", 1e-4, 0.01), ("bfloat16", 0.05, 0.1)])
def test_the_tolerance_depends_on_the_dtype(dtype: Any, low: float, high: float) -> None:  # noqa: ANN401 - a literal
    recipe = Recipe(**{**RECIPE.__dict__, "dtype": dtype})
    assert low < get_tolerance(recipe) < high


def test_the_real_backbone_computes_the_same_canaries_a_second_time(tmp_path: Path) -> None:
    from tasks.embed.find_recipe import resolve
    from tasks.embed.settings import EmbedSettings
    from tasks.embed.step import record_recipe

    home = open_home(tmp_path / "home")
    settings = EmbedSettings()
    resolved = resolve(home, settings)
    record_recipe(home, resolved)
    for _ in range(2):
        open_once.cache_clear()
        assert verify_canaries(home, SourceName("none"), resolved.recipe.recipe_id, 1, settings) in RUNTIMES

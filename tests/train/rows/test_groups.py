"""Groups: similar images share a split, images between splits are left out, and growth moves none."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from flows.operations.evaluate import describe, evaluate_head
from storage.errors import TrainError
from storage.lake.attach import open_lake, read_lake
from storage.locations.home import Home
from storage.names import LabelSetName, ModelName, SourceName
from storage.progress import Advance, silent
from storage.tables.features import commit_shard
from storage.tables.recipes import save_recipe
from storage.tables.scans import commit_scan
from storage.vectors.feature_file import Matrix, Shard, write_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tasks.train.rows.groups import group_images
from tasks.train.rows.near_duplicates import find_earlier_neighbours
from tasks.train.rows.splits import SPLITS, hash_position
from tasks.train.settings import TrainSettings
from tasks.train.train import Trained, TrainingData, train_head
from tests.counting import decide_recipe
from tests.pictures import write_image
from tests.rows import name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = decide_recipe(EmbedSettings(), Weights(Path(), "0" * 64))
SEEN = {"group": r"^[^/]+/(patient\d+)_", "near_duplicates": True}

Links = list[tuple[list[str], list[int]]]
"""For each image, the names of its groups, and the earlier images that it may duplicate."""


@st.composite
def draw_links(draw: st.DrawFn) -> Links:
    count = draw(st.integers(1, 40))
    names = st.lists(st.sampled_from("abcdefgh"), max_size=2, unique=True)
    return [
        (draw(names), draw(st.lists(st.integers(0, at - 1), max_size=3, unique=True)) if at else [])
        for at in range(count)
    ]


def join(links: Links, placed: dict[str, str] | None = None, *, same: bool = True) -> dict[int, str]:
    """Group images that look the same or not; return the key of the group of each that is not left out."""
    ids = [name(at) for at in range(len(links))]
    close = (np.array(near, np.int64) for _, near in links)
    keys = group_images(ids, [names for names, _ in links], close, lambda *_: same, placed or {})
    return {ids.index(image_id): key for image_id, key in keys.items()}


def place(groups: dict[int, str], placed: dict[str, str]) -> dict[str, str]:
    """Place every group as a training does: where its images are already, or else by hash."""
    of_group = {key: placed[name(at)] for at, key in groups.items() if name(at) in placed}
    splits = {key: of_group.get(key) or SPLITS[int(3 * hash_position(key, ""))] for key in groups.values()}
    return {**placed, **{name(at): splits[key] for at, key in groups.items()}}


@given(draw_links())
@settings(deadline=None)
def test_groups_and_near_duplicates_stay_together(links: Links) -> None:
    keys = join(links)
    for group in "abcdefgh":
        assert len({keys[at] for at, (names, _) in enumerate(links) if at in keys and group in names}) <= 1
    for at, (_, near) in enumerate(links):
        assert all(keys[at] == keys[other] for other in near if at in keys and other in keys)


@given(draw_links(), st.lists(st.integers(0, 40), max_size=3))
@settings(deadline=None)
def test_added_images_move_no_earlier_one_and_groups_stay_within_a_split(links: Links, stages: list[int]) -> None:
    placed: dict[str, str] = {}
    members: set[int] = set()
    for known in [*sorted(stages), len(links)]:
        groups = join(links[:known], placed)
        assert members <= groups.keys()
        earlier, placed = placed, place(groups, placed)
        assert earlier.items() <= placed.items()
        members = set(groups)
        for key in set(groups.values()):
            assert len({placed[name(at)] for at, other in groups.items() if other == key}) == 1


def test_an_image_that_resembles_images_of_two_splits_is_left_out() -> None:
    alone: Links = [([], []) for _ in range(20)]
    placed = {name(at): "train" if at % 2 else "test" for at in range(20)}
    found = join([*alone, ([], [0, 1]), ([], [20]), ([], [1]), ([], [1, 3])], placed)
    assert 20 not in found
    assert found[21] == name(21)
    assert found[22] == found[23] == found[1] == found[3] == name(1)


def test_images_that_were_never_placed_join_freely() -> None:
    alone: Links = [([], []) for _ in range(3)]
    assert set(join([*alone, ([], [0, 1, 2])]).values()) == {name(0)}
    assert set(join([*alone, ([], [0, 1, 2])], {name(2): "test"}).values()) == {name(0)}


def test_images_that_look_different_are_not_near_duplicates() -> None:
    links: Links = [([], [at - 1] if at else []) for at in range(20)]
    assert set(join(links).values()) == {name(0)}
    assert join(links, same=False) == {at: name(at) for at in range(20)}


def make_features(count: int, seed: int = 0) -> Matrix:
    features: Matrix = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return features


def test_earlier_neighbours_do_not_change_as_images_are_added() -> None:
    features = np.concatenate([make_features(40), 5 * make_features(40, 1) + 30])
    arrivals = np.repeat(np.arange(8), 10)

    def meet(count: int) -> list[list[int]]:
        return [
            near.tolist() for near in find_earlier_neighbours(features[:count], arrivals[:count], 0.5, lambda _: None)
        ]

    assert any(meet(80))
    assert all(meet(80)[:count] == meet(count) for count in range(10, 80, 10))
    assert all(other < at for at, near in enumerate(meet(80)) for other in near)


class Clinic:
    """A folder of patients' images in two classes, with synthetic features."""

    def __init__(self, root: Path) -> None:
        self.photos, self.place, self.day = root / "photos", Home(root / "home"), 0
        self.vectors: dict[str, Any] = {}
        self.told: list[str] = []

    def add(self, path: str, seed: int, like: str | None = None) -> None:
        """Add a picture of a seed, or one that nearly equals another, so many pixels wide."""
        file, kind = self.photos / path, path.split("/", maxsplit=1)[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        if like is None:
            write_image(file, kind, seed)
            self.vectors[path] = np.random.default_rng(seed).normal(size=48) + 2 * (kind == "red")
            return
        with Image.open(self.photos / like) as image:
            image.resize((seed, seed)).save(file)
        self.vectors[path] = self.vectors[like] + 0.01

    def commit(self) -> None:
        """Scan the folder a day later, and store the features of what is new."""
        self.day += 1
        found = scan(self.place, SourceName("photos"), self.photos, IngestSettings(), silent)
        with open_lake(self.place) as lake:
            commit_scan(lake, found, NOW + timedelta(days=self.day))
            save_recipe(lake, {}, RECIPE, NOW)
            rows = lake.rows(
                """SELECT image_id::VARCHAR, min(path) FROM files ANTI JOIN features USING (image_id)
                   GROUP BY ALL ORDER BY 1"""
            )
            ids, paths = zip(*rows, strict=True)
            vectors = np.array([self.vectors[path] for path in paths], np.float32)
            file = write_features(self.place, RECIPE.recipe_id, ids, vectors)
            commit_shard(lake, Shard(RECIPE.recipe_id, SourceName("photos"), file, (), len(ids), 1.0), NOW)

    def train(self, **asked: Any) -> Trained:  # noqa: ANN401 - settings of any type
        chosen = TrainSettings(l2=(0.1,), **asked)
        data, now = TrainingData(LabelSetName("photos"), RECIPE.recipe_id), NOW + timedelta(days=self.day)
        return train_head(self.place, data, chosen, now, progress=self.watch)

    @contextlib.contextmanager
    def watch(self, what: str, total: int) -> Iterator[Advance]:
        """Keep what took long."""
        self.told.append(f"{what} {total}")
        yield lambda _: None

    def splits(self, trained: Trained) -> dict[str, str]:
        """Give the split of each path."""
        sql = "SELECT path, split FROM training_sets JOIN files USING (image_id) WHERE training_id = ?"
        with read_lake(self.place) as lake:
            return dict(lake.rows(sql, [trained.training.training_id]))


def make_clinic(root: Path) -> Clinic:
    """Make forty patients with three images each."""
    made = Clinic(root)
    for patient in range(40):
        for number in range(3):
            made.add(f"{'red' if patient % 2 else 'blue'}/patient{patient:02}_{number}.png", 10 * patient + number)
    made.commit()
    return made


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    """A clinic that a test may change."""
    return make_clinic(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    """A clinic that tests share and do not change."""
    return make_clinic(tmp_path_factory.mktemp("clinic"))


def list_patients(splits: dict[str, str]) -> list[set[str]]:
    patients: dict[str, set[str]] = {}
    for path, split in splits.items():
        patients.setdefault(path.split("/")[1].split("_")[0], set()).add(split)
    return list(patients.values())


def find(splits: dict[str, str], *wanted: str) -> Sequence[str]:
    return [next(path for path, split in splits.items() if split == each) for each in wanted]


def test_patients_stay_in_one_split_and_images_between_splits_are_reported(clinic: Clinic) -> None:
    assert any(len(splits) > 1 for splits in list_patients(clinic.splits(clinic.train())))
    first = clinic.train(**SEEN)
    before = clinic.splits(first)
    assert all(len(splits) == 1 for splits in list_patients(before))
    train, test = find(before, "train", "test")
    clinic.add("red/copy_0.png", 16, like=test)
    outside = train.split("/")[1].split("_")[0]
    clinic.add(f"red/{outside}_9.png", 24, like=test)
    clinic.commit()
    grown = clinic.train(**SEEN)
    after = clinic.splits(grown)
    assert before.items() <= after.items()
    assert {path: split for path, split in after.items() if path not in before} == {"red/copy_0.png": "test"}
    words = "1 image was left out because its group or near-duplicates are in several splits"
    assert first.warnings == ()
    assert grown.warnings == (words,)
    again = clinic.train(**SEEN)
    assert (again.new, again.warnings) == (False, (words,))
    assert again.training.training_id == grown.training.training_id


def test_images_are_compared_again_only_if_one_came_or_moved(clinic: Clinic) -> None:
    first, again = clinic.train(**SEEN), clinic.train(**SEEN)
    assert clinic.told == ["compare 120"]
    assert (again.new, again.training.training_id) == (False, first.training.training_id)
    clinic.add("red/other_0.png", 7777)
    clinic.commit()
    assert clinic.train(**SEEN).new
    assert clinic.train(**SEEN | {"seed": 1}).new
    assert clinic.told == ["compare 120", "compare 121", "compare 121"]


def test_a_group_pattern_that_matches_no_path_is_refused(still: Clinic) -> None:
    with pytest.raises(TrainError, match=r"'ward\(\.\)': matches no path of photos, such as .*/patient"):
        still.train(group="ward(.)")


def test_a_file_in_another_group_makes_another_training(clinic: Clinic) -> None:
    first, plain = clinic.train(**SEEN), clinic.train()
    file = clinic.photos / "red" / "patient01_0.png"
    file.rename(file.with_name("patient99_0.png"))
    scanned = scan(clinic.place, SourceName("photos"), clinic.photos, IngestSettings(), silent)
    with open_lake(clinic.place) as lake:
        commit_scan(lake, scanned, NOW + timedelta(days=9))
    assert clinic.train().training.training_id == plain.training.training_id
    assert clinic.train(**SEEN).training.training_id != first.training.training_id


def test_by_time_the_newest_patients_are_tested_and_splits_move_as_data_grows(clinic: Clinic) -> None:
    for patient in range(60, 80):
        for number in range(3):
            clinic.add(f"{'red' if patient % 2 else 'blue'}/patient{patient}_{number}.png", 10 * patient + number)
    clinic.add("red/patient01_9.png", 5555)
    clinic.commit()
    asked = {"split": "time", "test": 0.4, "validation": 0.2, **SEEN}
    splits = clinic.splits(clinic.train(**asked))
    assert all(len(each) == 1 for each in list_patients(splits))
    newest = {path for path in splits if "patient6" in path or "patient7" in path}
    assert {splits[path] for path in newest} <= {"test"}
    assert splits["red/patient01_0.png"] == "test"  # with the patient's newest picture
    counts = [list(splits.values()).count(split) for split in ("test", "validation", "train")]
    assert abs(counts[0] - 0.4 * len(splits)) <= 4
    assert abs(counts[1] - 0.2 * len(splits)) <= 4


@pytest.mark.parametrize("several", [False, True])
def test_cross_validation_measures_unseen_groups_without_test_images(still: Clinic, several: bool) -> None:
    plain, trained = (still.train(**SEEN, multi_label=several, folds=folds) for folds in (0, 4))
    figure = "cv_mean_average_precision" if several else "cv_accuracy"
    metrics = trained.training.metrics
    assert metrics.get(f"{figure}_low", 0) <= metrics[figure] <= metrics.get(f"{figure}_high", 1)
    assert metrics[figure] > 0.8
    assert plain.training.metrics == {name: value for name, value in metrics.items() if not name.startswith("cv_")}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"group": "("}, "is not a regular expression"),
        ({"group": "patient"}, "has no capturing group"),
        ({"folds": 2}, "must be 3 or more"),
        ({"folds": 5, "heads": ("tail",)}, "would train as many tails"),
    ],
)
def test_invalid_groups_and_folds_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainSettings(**asked)


def test_a_run_groups_by_path_and_its_evaluation_shows_cross_validation(
    run: Callable[..., dict[str, Any]], home: Path
) -> None:
    report = run(train={"group": r"/(\d+)\.", "folds": 3, "near_duplicates": True, "seed": 3})
    assert report["metrics"]["cv_accuracy"] > 0.5
    shown = Console(record=True, width=200)
    for line in describe(evaluate_head(Home(home), LabelSetName("photos"), ModelName("photos"), None)):
        shown.print(line)
    assert "cross-validated accuracy" in shown.export_text()

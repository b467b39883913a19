"""Reviews find planted errors, and only a person's decisions change labels."""

import csv
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.command.app import run_command
from flows.operations.review import apply_decisions
from storage.errors import ReviewError
from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.names import LabelSetName
from tasks.train.review.issues import Issue, find_issues
from tasks.train.settings import TrainSettings
from tests.pictures import write_image

PAGE = (Path(__file__).parents[3] / "docs" / "review.md").read_text(encoding="utf-8")
COUNT, DIM = 240, 16
RANDOM = np.random.default_rng(0)
NAMES = np.array(["cat", "dog", "owl"])[np.arange(COUNT) % 3]
FEATURES = (3 * np.eye(DIM)[np.arange(COUNT) % 3] + RANDOM.normal(size=(COUNT, DIM))).astype(np.float32)


def find(features: np.ndarray[Any, Any], names: np.ndarray[Any, Any], *, same: bool = True) -> list[Issue]:
    return find_issues(features, names, TrainSettings(l2=(0.1,)), lambda *_: same, lambda _: None)


def test_swapped_labels_are_found_and_the_original_class_is_suggested() -> None:
    names = NAMES.copy()
    swapped = RANDOM.choice(COUNT, 12, replace=False)
    names[swapped] = np.array(["cat", "dog", "owl"])[(swapped + 1) % 3]
    found = {issue.image: issue.suggestion for issue in find(FEATURES, names) if issue.problem == "label"}
    hits = set(found) & set(swapped.tolist())
    assert len(hits) >= 10
    assert len(found) <= 24
    assert all(found[row] == NAMES[row] for row in hits)


def test_labels_are_listed_least_probable_first() -> None:
    names = NAMES.copy()
    names[5] = "dog" if NAMES[5] != "dog" else "cat"
    scores = [issue.score for issue in find(FEATURES, names) if issue.problem == "label"]
    assert scores == sorted(scores)


def test_near_duplicates_of_different_classes_are_found_if_they_look_the_same() -> None:
    features = FEATURES.copy()
    features[1] = features[0] + 0.01

    def find_pairs(same: set[int]) -> list[tuple[int, int | None]]:
        found = find_issues(features, NAMES, TrainSettings(l2=(0.1,)), lambda *pair: set(pair) == same, lambda _: None)
        return [(issue.image, issue.other) for issue in found if issue.problem == "duplicate"]

    assert find_pairs({0, 1}) == [(0, 1), (1, 0)]
    assert not find_pairs(set())


def test_an_outlier_is_found() -> None:
    features = FEATURES.copy()
    features[:, :3] *= 10  # every image has close neighbours in its class
    features[7] = -40
    assert [issue.image for issue in find(features, NAMES) if issue.problem == "outlier"] == [7]


def test_a_class_with_one_image_is_skipped() -> None:
    names = NAMES.astype("<U9")
    names[9] = "once"
    assert 9 not in {issue.image for issue in find(FEATURES, names) if issue.problem == "label"}


def test_classes_with_one_image_each_raise_no_label_issue() -> None:
    assert not [issue for issue in find(FEATURES[:8], np.array(list("abcdefgh"))) if issue.problem == "label"]


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ReviewError, match="3 labelled images: a review needs more than 5"):
        find(FEATURES[:3], NAMES[:3])


def decide(table: Path, **decisions: str) -> None:
    """Fill in decisions by file name."""
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        row["decision"] = decisions.get(Path(row["file"]).stem, "")
    with table.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def labels_of(home: Home, name: str) -> list[tuple[str, str]]:
    with read_lake(home) as lake:
        return lake.rows(
            "SELECT class, l.source FROM labels l JOIN files USING (image_id) WHERE path LIKE ?", [f"%{name}%"]
        )


def test_decisions_become_labels_and_compute_no_feature(
    run: Callable[..., dict[str, Any]],
    photos: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(photos / "red" / "stray.png", "blue", 7)
    monkeypatch.chdir(tmp_path)
    (_, first_run), look, apply = (
        shlex.split(line, comments=True)[1:] for line in PAGE.split("```sh\n")[1].split("```")[0].splitlines()
    )
    assert first_run == "photos"
    first = run()
    lake_home, folder = Home(home), tmp_path / "review"
    run_command([*look, "--home", str(home)])
    hint = capsys.readouterr().out.split("then: frostline ")[1]
    assert "stray.png" in (folder / "review.html").read_text()
    assert run()["training"] == first["training"]  # a review changes nothing
    decide(folder / "review.csv", stray="blue")
    run_command([*apply, "--home", str(home)])
    assert labels_of(lake_home, "stray") == [("blue", "review:review.csv")]
    run_command([*shlex.split(hint), "--home", str(home)])  # the suggested command does the same
    assert labels_of(lake_home, "stray") == [("blue", "review:review.csv")]
    with pytest.raises(SystemExit, match="2"):  # the decisions in the table would be lost
        run_command([*look, "--home", str(home)])
    again = run()
    assert again["backbone_calls"] == 0
    assert again["training"] != first["training"]
    write_image(photos / "red" / "new.png", "red", 8)
    run()  # a scan that finds changes keeps decisions
    assert labels_of(lake_home, "stray") == [("blue", "review:review.csv")]
    assert apply_decisions(lake_home, LabelSetName("photos"), folder / "review.csv")["changed"] == 0
    (photos / "red" / "stray.png").unlink()
    run()
    with read_lake(lake_home) as lake:
        assert lake.value("SELECT count(*) FROM labels WHERE starts_with(source, 'review:')") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column decision and no column image_id"),
        ("image_id,decision\nx,\n", "has no decision"),
        ("image_id,decision\nx,cat\n", "image 'x' in .* is no image_id"),
        (
            "image_id,decision\n00000000-0000-0000-0000-000000000000,cat\n00000000-0000-0000-0000-000000000000,dog\n",
            "has several decisions",
        ),
    ],
)
def test_an_unclear_table_is_rejected(text: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "review.csv"
    table.write_text(text)
    with pytest.raises(ReviewError, match=message):
        apply_decisions(Home(tmp_path / "home"), LabelSetName("photos"), table)

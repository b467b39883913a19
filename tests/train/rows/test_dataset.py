"""The PyTorch dataset: every labelled row once per epoch, in an order that depends on the seed alone."""

from datetime import UTC, datetime

import numpy as np
import pytest
from torch.utils.data import DataLoader

from storage.lake.lake import Lake
from tasks.train.rows.dataset import FeatureDataset
from tests.storage.vectors.test_features_reader import RECIPE, all_ids, vectors_of
from tests.storage.vectors.test_features_reader import lake as lake  # noqa: PLC0414 - a fixture

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stream(dataset: FeatureDataset, workers: int) -> list[tuple[tuple[float, ...], str]]:
    """Read (vector, class) through a DataLoader."""
    # Not forked: another test may have started threads in this process.
    context = "forkserver" if workers else None
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context=context)
    return [
        (tuple(vector.tolist()), dataset.classes[number])
        for vectors, numbers in loader
        for vector, number in zip(vectors, numbers, strict=True)
    ]


def expected(lake: Lake) -> list[tuple[tuple[float, ...], str]]:
    labels: dict[object, str] = dict(lake.rows("SELECT image_id::VARCHAR, class FROM labels"))
    image_ids = all_ids(lake)
    return sorted(
        (tuple(row.tolist()), labels[name]) for name, row in zip(image_ids, vectors_of(image_ids), strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_labelled_row_comes_once_with_any_number_of_workers(lake: Lake, workers: int) -> None:
    dataset = FeatureDataset(lake.home, RECIPE.recipe_id, batch=2)
    assert (len(dataset), dataset.classes) == (12, ("blue", "green", "red"))
    assert sorted(stream(dataset, workers)) == expected(lake)


def test_the_order_depends_on_seed_and_epoch(lake: Lake) -> None:
    first, again = (FeatureDataset(lake.home, RECIPE.recipe_id, seed=1) for _ in range(2))
    assert stream(first, 2) == stream(again, 2) == stream(first, 2)
    assert stream(first, 0) != stream(FeatureDataset(lake.home, RECIPE.recipe_id, seed=2), 0)
    before = stream(first, 0)
    first.set_epoch(1)
    assert stream(first, 0) != before
    assert sorted(stream(first, 0)) == sorted(before)


def test_the_rows_are_those_of_one_snapshot(lake: Lake) -> None:
    dataset = FeatureDataset(lake.home, RECIPE.recipe_id)
    rows = expected(lake)
    lake.commit(lambda: lake.execute("DELETE FROM features"))
    assert sorted(stream(dataset, 2)) == rows
    assert sorted(stream(FeatureDataset(lake.home, RECIPE.recipe_id, at=lake.snapshot - 1), 0)) == rows
    assert len(FeatureDataset(lake.home, RECIPE.recipe_id)) == 0


def test_images_with_several_classes_are_left_out(lake: Lake) -> None:
    image_id = all_ids(lake, "class = 'red'")[0]
    lake.commit(lambda: lake.execute("INSERT INTO labels VALUES ('photos', ?, 'pink', 'hand', ?)", [image_id, NOW]))
    dataset = FeatureDataset(lake.home, RECIPE.recipe_id, where="class = 'red'")
    assert len(stream(dataset, 2)) == len(dataset) == 3
    assert not np.isin([name for _, name in stream(dataset, 0)], "pink").any()

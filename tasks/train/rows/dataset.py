"""Features as a stream for PyTorch, where they do not fit in memory."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from storage.lake.attach import read_lake
from storage.locations.home import Home
from storage.locations.parquet_files import open_data
from storage.names import LabelSetName
from storage.vectors.feature_file import Matrix
from storage.vectors.features_reader import find_features
from storage.vectors.gather import RowGroups, read_rows


class FeatureDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches of (vectors [n, dim] float32, class numbers [n] int64), for ``DataLoader(dataset, batch_size=None)``.

    The workers of a DataLoader share the row groups of the lake's files among them, each read by one. An epoch's order
    follows from ``seed`` and the epoch: row groups are shuffled, and the images in each; a row group's last batch may
    be smaller. The rows are those of one snapshot, and workers read files alone, never the catalog.

    Args:
        home: The home of the lake.
        recipe: A recipe's id, or what begins no other recipe's.
        label_set: Whose classes; images with none or several are left out. By default the only one that there is.
        at: A snapshot; by default the newest one now.
        where: A condition as in :func:`storage.vectors.features_reader.find_features`.
        batch: Images a batch.
        seed: Decides the order.

    Raises:
        QueryError: where recipe, snapshot, label set or condition do not fit the lake.
    """

    def __init__(
        self,
        home: Home,
        recipe: str,
        label_set: LabelSetName | None = None,
        at: int | None = None,
        where: str | None = None,
        batch: int = 256,
        seed: int = 0,
    ) -> None:
        with read_lake(home) as lake:
            features = find_features(lake, recipe, lake.snapshot if at is None else at, where)
            names = features.classes(label_set)
            self._groups = features.groups()
            # What lies in the catalog, a few rows at most, is read now.
            self._read_already = {group.file: features.read(group) for group in self._groups if not group.footer}
        self.classes = tuple(sorted(pc.unique(names.drop_null()).to_pylist()))
        """The names behind the numbers."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._targets = np.array([numbers.get(name, -1) for name in names.to_pylist()], np.int64)
        self._home, self._dim, self._batch, self._seed, self._epoch = home, features.recipe.dim, batch, seed, 0

    def __len__(self) -> int:
        """Count the labelled images."""
        return int((self._targets >= 0).sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose another order of the same rows."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read this worker's share of the row groups."""
        worker = get_worker_info()
        share, shares = (worker.id, worker.num_workers) if worker else (0, 1)
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._groups))
        for number in order[share::shares].tolist():
            yield from self._read(number)

    def _read(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        group = self._groups[number]
        targets = self._targets[group.positions]
        labelled = np.flatnonzero(targets >= 0)
        shuffled = np.random.default_rng([self._seed, self._epoch, number]).permutation(labelled)
        vectors = self._vectors(group)[shuffled]
        for start in range(0, len(shuffled), self._batch):
            chosen = slice(start, start + self._batch)
            yield torch.from_numpy(vectors[chosen]), torch.from_numpy(targets[shuffled[chosen]])

    def _vectors(self, group: RowGroups) -> Matrix:
        if group.footer is None:
            return self._read_already[group.file]
        return read_rows(open_data(self._home)[0], group, self._dim)

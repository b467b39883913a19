"""Features as a stream for PyTorch, if they do not fit in memory."""

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

    The workers of a DataLoader divide the row groups of the lake's files among them. The order depends on ``seed`` and
    the epoch alone: row groups are shuffled, and the images in each; a row group's last batch may be smaller. The rows
    are those of one snapshot. Workers read only files, never the catalog.

    Args:
        home: The home of the lake.
        recipe: A recipe's id, or a unique prefix of it.
        label_set: The label set; images with no class or several are left out. Defaults to the only label set.
        at: A snapshot; defaults to the newest one.
        where: A condition; see :func:`storage.vectors.features_reader.find_features`.
        batch: Images per batch.
        seed: Decides the order.

    Raises:
        QueryError: if the recipe, snapshot, label set or condition does not fit the lake.
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
            # Inlined rows, a few at most, are in the catalog and read now.
            self._inlined = {group.file: features.read(group) for group in self._groups if not group.footer}
        self.classes = tuple(sorted(pc.unique(names.drop_null()).to_pylist()))
        """The class names, by class number."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._targets = np.array([numbers.get(name, -1) for name in names.to_pylist()], np.int64)
        self._home, self._dim, self._batch, self._seed, self._epoch = home, features.recipe.dim, batch, seed, 0

    def __len__(self) -> int:
        """Count the labelled images."""
        return int((self._targets >= 0).sum())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order."""
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
            return self._inlined[group.file]
        return read_rows(open_data(self._home)[0], group, self._dim)

"""The training data as MLflow's lineage shows it: which lake, which snapshot, which rows."""

from typing import Any, Self

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.meta_dataset import MetaDataset

from storage.locations.home import Home
from storage.tables.trainings import Training


class LakeSource(DatasetSource):
    """Rows of ``training_sets`` in a lake, pinned by a snapshot."""

    def __init__(self, catalog: str, snapshot: int, training_id: str) -> None:
        self.catalog, self.snapshot, self.training_id = catalog, snapshot, training_id

    @staticmethod
    def _get_source_type() -> str:
        return "ducklake"

    def load(self, **_: Any) -> str:  # noqa: ANN401 - MLflow's signature
        """Return the query that reads the rows."""
        return f"SELECT image_id, class, split FROM training_sets WHERE training_id = '{self.training_id}'"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:  # noqa: ANN401, ARG004 - MLflow's signature
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:  # noqa: ANN401 - MLflow's signature
        raise NotImplementedError(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        return {"catalog": self.catalog, "snapshot": self.snapshot, "training_id": self.training_id}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(**source_dict)


def describe_data(home: Home, training: Training) -> MetaDataset:
    """Describe a training's rows; their digest is the training's id."""
    source = LakeSource(f"ducklake:{home.catalog_name}", training.snapshot, training.training_id)
    return MetaDataset(source, name=training.label_set, digest=training.training_id)  # type: ignore[abstract] # profile is inherited from no one and MLflow makes it so

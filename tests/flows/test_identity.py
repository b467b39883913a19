"""What decides identity is computed once per run; what a worker gets and returns are plain values."""

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.names import SourceName
from storage.sources.open_image import LocatedImage, Locator, folder_source
from storage.tables.leases import Lease
from storage.vectors.feature_file import Shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone import weights

if TYPE_CHECKING:
    from flows.embed import Embedded

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the files of weights that are hashed, by name; what is hashed before the test does not count."""
    names: Counter[str] = Counter()
    file_digest = hashlib.file_digest

    def count(file: Any, algorithm: str) -> Any:  # noqa: ANN401 - an open file, and a hash object
        names[Path(getattr(file, "name", "none")).name] += 1
        return file_digest(file, algorithm)

    monkeypatch.setattr("tasks.encoder.backbone.weights.hashlib.file_digest", count)
    return names


def test_a_run_hashes_each_file_of_weights_once_whatever_the_number_of_shards(
    run: Run, digested: Counter[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    report = run(embed={"weights": str(tmp_path / "mine.safetensors"), "shard": 10})
    assert report["features"]["computed"] == 60
    assert {name: count for name, count in digested.items() if "safetensors" in name} == {
        "mine.safetensors": 1,
        "weights.safetensors": 1,
    }


def test_weights_that_change_are_hashed_again(digested: Counter[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"weights")
    before = [weights.digest_file(path) for _ in range(2)]
    path.write_bytes(b"changed")
    after = weights.digest_file(path)
    assert before[0] == before[1] != after
    assert digested == {"mine.safetensors": 2}


def test_a_pipeline_resolves_its_recipes_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(*arguments: Any) -> Any:  # noqa: ANN401 - passed on
        calls.append(1)
        return weights.find_weights(*arguments)

    monkeypatch.setattr("tasks.embed.find_recipe.find_weights", count)
    monkeypatch.setattr("flows.train.find_weights", count)
    assert run(embed={"views": 2})["features"]["computed"] == 180
    assert len(calls) == 1


def test_a_workers_jobs_and_results_can_be_pickled(
    embed_photos: Callable[..., "Embedded"], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.embed.step import ShardJob, run_shard

    shards: list[Shard] = []

    def send(job: ShardJob) -> Shard:
        copy = pickle.loads(pickle.dumps(job))  # noqa: S301 - our own
        assert copy == job
        shards.append(run_shard(copy))
        return pickle.loads(pickle.dumps(shards[-1]))  # type: ignore[no-any-return] # noqa: S301 - our own

    monkeypatch.setattr("flows.runners.run_shard", send)
    assert embed_photos().computed == 60
    assert [pickle.loads(pickle.dumps(shard)) for shard in shards] == shards  # noqa: S301 - our own


def test_a_job_is_made_of_plain_values(tmp_path: Path) -> None:
    from storage.locations.home import open_home
    from tasks.embed.step import ShardJob

    lease = Lease("me", (LocatedImage("id", Locator("1.png")),))
    job = ShardJob(
        open_home(tmp_path), "recipe", folder_source(SourceName("photos"), tmp_path), 1, lease, EmbedSettings()
    )
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301 - our own

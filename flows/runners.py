"""Runners: where the shards of a run are embedded."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from storage.vectors.feature_file import Shard
from tasks.embed.step import ShardJob, run_shard


class ShardRunner(Protocol):
    """Embeds shards, anywhere and in any order; the flow that calls it claims and commits them."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[tuple[ShardJob, Shard]]:
        """Take a job whenever a worker is free; yield each with its shard when that is embedded."""


class SequentialRunner:
    """Embeds one shard after another in this process; the next is claimed when the last is committed."""

    def run(self, jobs: Iterable[ShardJob]) -> Iterator[tuple[ShardJob, Shard]]:
        """Embed each job's shard; see :class:`ShardRunner`."""
        for job in jobs:
            yield job, run_shard(job)

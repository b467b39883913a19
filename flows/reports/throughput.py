"""How fast images went through the engine, and which stage was the bottleneck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.vectors.feature_file import Shard


@dataclass(frozen=True)
class Throughput:
    """Images embedded, bytes read for them, and seconds taken.

    ``bound`` is the share of the time in which the other stages waited for each one, the largest first.
    """

    images: int
    bytes: int
    seconds: float
    bound: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the part of ``frostline run --json`` under ``pace``."""
        seconds = max(self.seconds, 1e-9)
        return {
            "images_per_second": round(self.images / seconds, 1),
            "bytes_per_second": round(self.bytes / seconds),
            "bound": self.bound,
        }

    def __str__(self) -> str:
        """Return images and bytes per second, and the slowest stage."""
        return describe_pace(self.to_json())


NONE = Throughput(0, 0, 0.0, {})
"""That of a run that embeds nothing."""


def describe_pace(pace: Mapping[str, Any]) -> str:
    """Describe images and bytes per second and the slowest stage, from :meth:`Throughput.to_json`."""
    speed = f"{pace['images_per_second']:.0f} images/s · {pace['bytes_per_second'] / 1e6:.1f} MB/s"
    return " · ".join([speed, *(f"{stage}-bound: {share:.0%}" for stage, share in [*pace["bound"].items()][:1])])


def measure(shards: "Sequence[Shard]") -> Throughput:
    """Sum images, bytes and seconds of shards."""
    return Throughput(
        sum(shard.calls for shard in shards),
        sum(shard.bytes for shard in shards),
        sum(shard.seconds for shard in shards),
        _measure_waits(shards),
    )


def _measure_waits(shards: "Sequence[Shard]") -> dict[str, float]:
    total = sum(sum(shard.waits.values()) for shard in shards)
    if not total:
        return {}
    stages = {stage for shard in shards for stage in shard.waits}
    shares = {stage: sum(shard.waits.get(stage, 0.0) for shard in shards) / total for stage in stages}
    return dict(sorted(((stage, round(share, 3)) for stage, share in shares.items()), key=lambda part: -part[1]))

"""Whole processes over 392 photos beside the script that people write instead: ``python -m benchmarks.peers``.

Each turn takes both through a first run, a run with nothing new, one with 5 new photos, one after a photo was renamed,
one with weights of which a byte has changed, and a first run that is killed at a random moment and then finished. What
is measured are the CPU seconds of all processes that descend from a run, whoever waits for them, and wall seconds.
"""

import argparse
import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Ratio, make_parser, run_benchmark
from benchmarks.photos import make_photos
from storage.locations.home import open_home
from tasks.encoder.backbone.weights import EMBEDDED, find_weights

PHOTOS, QUICK_PHOTOS, NEW, CLASSES = 392, 60, 5, 7
SCRIPT = Path(__file__).with_name("plain_script.py")
BECOME_SUBREAPER = 36
"""Of ``prctl``: processes whose parents have ended become this one's children."""
MOST = 1.0
ARCHITECTURE = EMBEDDED.partition("/")[2]

Command = Callable[[Path, Path, Path], list[str]]
"""From a folder of photos, a store and a file of weights to a command line."""


def run_plain(photos: Path, store: Path, weights: Path) -> list[str]:
    """Return the command of the plain script."""
    return [sys.executable, str(SCRIPT), str(photos), str(store), str(weights)]


def run_frostline(photos: Path, store: Path, weights: Path) -> list[str]:
    """Return the command of Frostline; the embedded weights are named as such, as people would."""
    named = ["--embed.weights", str(weights)] if weights.suffix == ".pt" else []
    options = ["--embed.dtype", "float32", "--home", str(store), *named]
    return [sys.executable, "-m", "flows.start", "run", str(photos), *options]


@dataclass(frozen=True)
class Cost:
    """What a command and its descendants took, in seconds."""

    cpu: float
    wall: float


class Contender:
    """One side: its command, and its folders."""

    def __init__(self, command: Command, folder: Path, photos: Sequence[Path], weights: Path) -> None:
        self.command, self.folder, self.weights = command, folder, weights
        self.photos, self.new = folder / "photos", photos[-NEW:]
        for number, photo in enumerate(photos[:-NEW]):
            self._add(photo, number)

    def take_turn(self, killed_after: float) -> dict[str, Cost]:
        """Take all steps of a turn."""
        store = self.folder / "store"
        costs = {"first run": self._measure(store), "nothing new": self._measure(store)}
        for number, photo in enumerate(self.new):
            self._add(photo, number)
        costs["5 new"] = self._measure(store)
        renamed = min(self.photos.rglob("*.jpg"))
        renamed.rename(renamed.with_name("renamed.jpg"))
        costs["renamed"] = self._measure(store)
        costs["other weights"] = self._measure(store, _change_byte(self.weights, self.folder / "other.pt"))
        costs["killed and finished"] = self._measure_killed(
            self.folder / "killed", killed_after * costs["first run"].wall
        )
        return costs

    def _add(self, photo: Path, number: int) -> None:
        target = self.photos / f"class-{number % CLASSES}" / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, target)

    def _measure(self, store: Path, weights: Path | None = None) -> Cost:
        with _measuring() as costs:
            command = self.command(self.photos, store, weights or self.weights)
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        return costs[0]

    def _measure_killed(self, store: Path, seconds: float) -> Cost:
        """Kill a first run after some seconds, then run again to the end; give what both took."""
        with _measuring() as costs:
            started = subprocess.Popen(
                self.command(self.photos, store, self.weights),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(seconds)
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        rest = self._measure(store)
        return Cost(costs[0].cpu + rest.cpu, costs[0].wall + rest.wall)


@contextmanager
def _measuring() -> Iterator[list[Cost]]:
    """Measure a block; its cost is in the list once it is over and all its descendants have ended."""
    costs, before, began = list[Cost](), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    yield costs
    wall = time.perf_counter() - began
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    costs.append(Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))


def _change_byte(weights: Path, changed: Path) -> Path:
    """Copy weights with a change in the last bit of one number."""
    import timm
    import torch

    stored = torch.load(weights, weights_only=True).values()
    state = dict(zip(timm.create_model(ARCHITECTURE).state_dict(), stored, strict=True))
    last = next(tensor for tensor in reversed(state.values()) if tensor.is_floating_point() and tensor.numel() > 1)
    last.view(-1)[0] += last.view(-1)[0].abs() * 2e-7 + 1e-12
    torch.save(state, changed)
    return changed


def main() -> None:
    """Take turns, and compare each step."""
    run_benchmark(make_parser(__doc__), measure)


def measure(options: argparse.Namespace) -> list[Ratio]:
    """Measure both sides in turns, from empty folders each."""
    ctypes.CDLL(None).prctl(BECOME_SUBREAPER, 1, 0, 0, 0)
    photos = make_photos(QUICK_PHOTOS if options.quick else PHOTOS + NEW)
    with tempfile.TemporaryDirectory() as folder:
        weights = find_weights(open_home(Path(folder)), EMBEDDED, "embedded")
    if weights is None:
        raise SystemExit("the embedded weights are missing")
    pairs, moments = defaultdict[str, list[tuple[float, float]]](list), random.Random(0)  # noqa: S311 - moments of a kill
    for _ in range(1 if options.quick else options.runs):
        moment = moments.uniform(0.1, 0.9)
        with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
            sides = [
                Contender(command, Path(root), photos, weights.path).take_turn(moment)
                for command, root in ((run_frostline, ours), (run_plain, theirs))
            ]
        for step, cost in sides[0].items():
            other = sides[1][step]
            pairs[f"{step}, CPU seconds"].append((cost.cpu, other.cpu))
            pairs[f"{step}, wall seconds"].append((cost.wall, other.wall))
            print(f"{step}: {cost.cpu:.1f} CPU s, {cost.wall:.1f} s; plain {other.cpu:.1f} CPU s, {other.wall:.1f} s")
    return [Ratio(f"{step} / plain script", tuple(each), MOST, "s", at_most=True) for step, each in pairs.items()]


if __name__ == "__main__":
    main()

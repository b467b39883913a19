"""First runs that begin at once on a new home: ``python -m tests.faults.first_runs [ROUNDS]``.

Each is a whole ``frostline run`` over the counting backbone: lake, MLflow store, registered model. They share the work
and all succeed; whoever comes first registers the model.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient

from flows.operations.doctor import examine
from storage.lake.attach import read_lake
from storage.locations.home import Home, open_home
from tests.counting import Tally
from tests.pictures import write_folder
from tests.servers import environment

ROOT = Path(__file__).parents[2]
RUNS, PER_CLASS = 4, 20
TIMEOUT = 900


def race(folder: Path, rounds: int, count: int = RUNS) -> None:
    """Start first runs together on a new home, in every round.

    Raises:
        AssertionError: if a run fails, anything was done twice, or the lake is not sound.
    """
    photos = write_folder(folder / "photos", PER_CLASS)
    for round_ in range(rounds):
        home, log = folder / f"home-{round_}", folder / f"calls-{round_}"
        runs = [start(photos, home, log) for _ in range(count)]
        ends = [finish(run) for run in runs]
        assert [code for code, _ in ends] == [0] * count, "\n".join(text for _, text in ends)
        check(open_home(home), Tally(log))


def start(photos: Path, home: Path, log: Path) -> subprocess.Popen[str]:
    variables = {"PYTHONPATH": str(ROOT), "COUNTING_LOG": str(log)}
    command = [sys.executable, "-m", "tests.counting", "run", str(photos), "--home", str(home)]
    return subprocess.Popen(
        [*command, "--embed.shard", "8"],
        env={**environment(), **variables},
        cwd=photos.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a run; returns its exit code and what it printed."""
    try:
        printed, _ = run.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        run.kill()
        printed, _ = run.communicate()
    return run.returncode, printed


def check(home: Home, tally: Tally) -> None:
    """Check that the runs did the work of one, each part of it once."""
    images = 3 * PER_CLASS
    assert tally.images == images
    with read_lake(home) as lake:
        assert lake.rows("SELECT count(*), count(DISTINCT image_id) FROM features") == [(images, images)]
        assert lake.value("SELECT count(*) FROM heads") == 1
        assert lake.rows("SELECT name, version, alias FROM models") == [("photos", 1, "champion")]
        assert lake.rows("SELECT version, until IS NULL FROM champions") == [(1, True)]
        assert lake.rows("SELECT count(*), count(DISTINCT image_id) FROM latest_predictions") == [(images, images)]
        assert lake.value("SELECT count(*) FROM leases") == 0
    client = MlflowClient(*2 * (f"sqlite:///{home.registry_database}",))
    assert [str(each.version) for each in client.search_model_versions("name='photos'")] == ["1"]
    assert examine(home, datetime.now(UTC), deep=False) == []


def main() -> None:
    """Run many rounds, and print how long they took."""
    rounds, began = int(sys.argv[1]) if len(sys.argv) > 1 else 3, time.monotonic()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        race(Path(folder), rounds)
    print(f"{rounds} rounds of {RUNS} first runs in {time.monotonic() - began:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()

"""Of four runs two are killed: the others share the work, and no reader sees half a commit."""

from pathlib import Path

from tests.faults.many_runs import race

ROUNDS = 6  # `python -m tests.faults.many_runs 50` runs more


def test_of_four_runs_two_are_killed_and_the_others_finish_with_nothing_lost_or_twice(tmp_path: Path) -> None:
    race(tmp_path, ROUNDS)

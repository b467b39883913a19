"""First runs that begin at once on a new home: all succeed, and together they do the work of one."""

from pathlib import Path

from tests.faults.first_runs import race


def test_four_first_runs_at_once_do_the_work_of_one(tmp_path: Path) -> None:
    race(tmp_path, 1, 4)  # `python -m tests.faults.first_runs 10` does so ten times

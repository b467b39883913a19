"""First runs that begin at once on a new home: all succeed, and together they do the work of one."""

from pathlib import Path

from tests.faults.first_runs import race


def test_first_runs_at_once_do_the_work_of_one(prefect_api: str, tmp_path: Path) -> None:
    # `python -m tests.faults.first_runs 3` runs three rounds of four runs, each with a private server of its own
    race(tmp_path, 1, 2, prefect_api)

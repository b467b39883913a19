"""Erasures beside runs that embed and maintain, some killed: once one is finished, nothing of its images is left."""

from pathlib import Path

from tests.faults.erasing import race

ROUNDS = 4  # `python -m tests.faults.erasing 50` runs more


def test_no_file_holds_an_erased_image_whatever_raced_the_erasure_or_was_killed(tmp_path: Path) -> None:
    race(tmp_path, ROUNDS)

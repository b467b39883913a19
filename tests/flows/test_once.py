"""Promise 1: a feature is computed once, whatever happens to paths and labels."""

from collections.abc import Callable
from typing import Any

from tests.counting import Tally

Run = Callable[..., dict[str, Any]]


def test_a_second_run_over_unchanged_files_opens_none_and_computes_nothing(run: Run, tally: Tally) -> None:
    first, second = run(), run()
    assert first["features"] == {"computed": 60, "reused": 0, "failed": 0}
    assert second["features"] == {"computed": 0, "reused": 60, "failed": 0}
    assert second["files"]["opened"] == 0
    assert (first["backbone_calls"], second["backbone_calls"]) == (60, 0)
    assert tally.images == 60

"""While Prefect's server starts, the libraries that the run needs are imported, and no others."""

import json
from pathlib import Path

import pytest

from flows.command.app import run_command
from tests.pictures import write_image
from tests.test_layers import run_python

WARM_UP = """
import sys
from pathlib import Path
from flows.settings import RunSettings
from flows.orchestrator.warm_up import warm_up

with warm_up(RunSettings(source=Path(sys.argv[1]), home=Path(sys.argv[2]))):
    pass
print(*sorted({"mlflow", "torch"} & set(sys.modules)))
"""


@pytest.mark.usefixtures("first_report")
@pytest.mark.parametrize(("grown", "loaded"), [(False, "mlflow\n"), (True, "mlflow torch\n")])
def test_the_backbone_is_opened_only_if_something_is_new(photos: Path, home: Path, *, grown: bool, loaded: str) -> None:
    if grown:
        write_image(photos / "red" / "new.png", "red", 999)
    assert run_python(WARM_UP, photos, home) == loaded


@pytest.mark.usefixtures("tally", "prefect_api")
def test_with_a_named_server_nothing_is_warmed_up(
    photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.orchestrator.warm_up.warm_up", lambda _: pytest.fail("it would scan the folder twice"))
    run_command(["run", str(photos), "--home", str(home), "--json"])
    assert json.loads(capsys.readouterr().out)["images"]["new"] == 60

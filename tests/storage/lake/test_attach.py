"""Yours to leave: a plain DuckDB with the extensions reads the lake, without a line of this project."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

READER = """
import importlib.util, json, pathlib, sys, tempfile
import duckdb

home, snapshot, query = sys.argv[1:]
con = duckdb.connect()
for wheel, name in (("ducklake", "ducklake"), ("sqlite", "sqlite_scanner")):
    package = importlib.util.find_spec("duckdb_extension_" + wheel).submodule_search_locations[0]
    file = next(pathlib.Path(package).rglob("*.duckdb_extension"))
    link = pathlib.Path(tempfile.mkdtemp()) / (name + ".duckdb_extension")
    link.symlink_to(file)
    con.execute(f"LOAD '{link}'")
at = f", SNAPSHOT_VERSION {snapshot}" if snapshot else ""
con.execute(
    f"ATTACH 'ducklake:sqlite:{home}/catalog.sqlite' AS lake "
    f"(DATA_PATH '{home}/data/', OVERRIDE_DATA_PATH true, READ_ONLY{at})"
)
con.execute("USE lake")
rows = con.execute(query).fetchall()
ours = [name for name in sys.modules if name.split(".")[0] in ("storage", "tasks", "flows", "deployments")]
print(json.dumps({"rows": rows, "ours": ours}, default=str))
"""

LABELLED = """
    SELECT class, count(*), min(len(vector)), max(len(vector)), sum(list_sum(vector)) > 0
    FROM labels JOIN features USING (image_id) WHERE label_set = 'photos' GROUP BY class ORDER BY class"""


def read(home: Path, query: str, snapshot: int | None = None) -> list[Any]:
    """Ask a DuckDB in a process of its own, which knows nothing of this project."""
    arguments = [str(home), str(snapshot or ""), query]
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, *arguments], capture_output=True, text=True, check=False, cwd=home
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ours"] == []
    rows: list[Any] = answer["rows"]
    return rows


def test_a_plain_duckdb_reads_labels_with_features_as_they_are_and_as_they_were(
    first_report: dict[str, Any], run: Callable[..., dict[str, Any]], photos: Path, home: Path
) -> None:
    first = first_report
    (photos / "blue").rename(photos / "azure")
    for picture in sorted((photos / "red").iterdir())[:3]:
        picture.unlink()
    second = run()

    assert read(home, LABELLED) == [[name, n, 48, 48, True] for name, n in (("azure", 20), ("green", 20), ("red", 17))]
    then = [[name, 20, 48, 48, True] for name in ("blue", "green", "red")]
    assert read(home, LABELLED, first["snapshot"]) == then
    assert read(home, LABELLED, second["snapshot"])[0][0] == "azure"

    trained = "SELECT count(*), count(DISTINCT image_id) FROM training_sets WHERE training_id = "
    assert read(home, f"{trained}'{first['training']}'") == [[60, 60]]
    assert read(home, "SELECT name, max(version) FROM image_lineage GROUP BY name") == [["photos", 2]]
    # Version 2 lacks the class blue, so version 1 stays champion; its predictions of the deleted images stay, too.
    assert read(home, "SELECT version, count(*) FROM latest_predictions GROUP BY version") == [[1, 60]]

"""Snapshots: tagged, found by tag, read and compared."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.errors import LakeError
from storage.lake.attach import open_existing_lake, open_lake, read_lake
from storage.lake.snapshots import compare, delete_tag, find_snapshot, tag_snapshot
from storage.locations.home import Home, open_home
from tests.rows import LABELLED, add_features, label

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_tag_can_be_used_like_a_snapshot_number(place: Home) -> None:
    with open_lake(place) as lake:
        add_features(lake, range(4))
        tagged = tag_snapshot(lake, "before", None, NOW)
        add_features(lake, range(4, 10))
        assert find_snapshot(lake, "before") == tagged == find_snapshot(lake, str(tagged))
        for name in ("before", tagged):
            with read_lake(place, name) as then, read_lake(place, name) as also:
                assert then.value("SELECT count(*) FROM features") == 4
                assert also.value("SELECT count(*) FROM features") == 4
        assert lake.value("SELECT count(*) FROM features") == 10


def test_a_tag_of_an_old_snapshot_stays_on_it_until_it_is_deleted(place: Home) -> None:
    with open_lake(place) as lake:
        first = lake.snapshot
        add_features(lake, range(4))
        assert tag_snapshot(lake, "v1", first, NOW) == first
        assert tag_snapshot(lake, "v1", first, NOW) == first
        with pytest.raises(LakeError, match=f"names snapshot {first} already"):
            tag_snapshot(lake, "v1", None, NOW)
        assert delete_tag(lake, "v1") == first
        assert tag_snapshot(lake, "v1", None, NOW) > first


def test_missing_snapshots_and_tags_are_refused(place: Home, tmp_path: Path) -> None:
    with open_lake(place) as lake:
        for wrong in ("none", 9999, "9999"):
            with pytest.raises(LakeError, match=str(wrong)):
                read_lake(place, wrong)
        for name in ("1", "", "a b", "-x"):
            with pytest.raises(LakeError, match="must start with a letter"):
                tag_snapshot(lake, name, None, NOW)
        with pytest.raises(LakeError, match="does not exist in this lake"):
            delete_tag(lake, "none")
    with pytest.raises(LakeError, match="has no lake"):
        open_existing_lake(open_home(tmp_path / "elsewhere"))


def test_a_comparison_counts_added_removed_and_changed_rows(place: Home) -> None:
    with open_lake(place) as lake:
        label(lake, range(6), "cat")
        add_features(lake, range(6))
        before = lake.snapshot
        add_features(lake, range(6, 9))
        label(lake, range(6, 9), "dog")
        lake.commit(lambda: lake.execute(f"UPDATE labels SET class = 'dog' WHERE {LABELLED} < 2"))
        lake.commit(lambda: lake.execute(f"DELETE FROM labels WHERE {LABELLED} = 5"))
        lake.commit(lambda: lake.execute(f"DELETE FROM files WHERE {LABELLED} = 5"))
        found = compare(lake, before, lake.snapshot)
        counts = {kind: (len(c.added), len(c.removed), c.changed) for kind, c in found.items()}
        assert counts == {"images": (3, 1, 0), "labels": (5, 3, 2), "features": (3, 0, 0), "predictions": (0, 0, 0)}
        back = compare(lake, lake.snapshot, before)
        assert found["labels"].added == back["labels"].removed
        assert found["features"].to_json(1)["rows_added"] == ((f"{'r' * 32}", "00000000-0000-0000-0000-000000000006"),)


def test_no_snapshot_can_be_tagged_while_an_erasure_is_unfinished(place: Home) -> None:
    with open_lake(place) as lake:
        add_features(lake, range(4))
        lake.commit(lambda: lake.execute("INSERT INTO erasures VALUES ('e', 'images', 1, 1, '[]', NULL)"))
        with pytest.raises(LakeError, match=r"while an erasure is unfinished.*Finish it first: `frostline erase`"):
            tag_snapshot(lake, "v1", None, NOW)
        lake.commit(lambda: lake.execute("UPDATE erasures SET erased_at = now()"))
        assert tag_snapshot(lake, "v1", None, NOW)


def test_a_snapshot_that_expires_before_it_is_tagged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lake(open_home(tmp_path)) as lake:
        add_features(lake, range(4))
        monkeypatch.setattr(type(lake), "snapshot", 999)
        with pytest.raises(LakeError, match=r"snapshot 999.*has expired"):
            tag_snapshot(lake, "v1", None, NOW)

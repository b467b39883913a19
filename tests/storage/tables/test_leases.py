"""Leases: no two runs embed the same images, and the leases of dead runs end."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storage.lake.attach import open_lake
from storage.lake.lake import Lake
from storage.locations.home import Home
from storage.locations.processes import find_state, name_process
from storage.names import SourceName
from storage.tables.features import commit_shard
from storage.tables.leases import (
    DURATION,
    Lease,
    end_leases,
    find_living,
    list_holders,
    name_holder,
    renew_lease,
    take_lease,
)
from storage.tables.missing import FeatureRequest
from storage.vectors.feature_file import Shard, write_features
from tests.pictures import write_folder
from tests.storage.tables.test_features import NOW, OTHER, RECIPE, ingest, make_vectors

MINE, YOURS = "mine@elsewhere/1", "yours@elsewhere/2"
WANTED = FeatureRequest(RECIPE, SourceName("photos"))
LATER = NOW + DURATION + timedelta(seconds=1)


@pytest.fixture
def lake(place: Home, tmp_path: Path) -> Iterator[Lake]:
    with open_lake(place) as opened:
        ingest(opened, write_folder(tmp_path / "photos", per_class=4))
        yield opened


def taken(lease: Lease | None) -> set[str]:
    assert lease
    return {image_id for image_id, _ in lease.items}


def commit(lake: Lake, lease: Lease | None) -> None:
    assert lease
    file = write_features(lake.home, RECIPE, sorted(taken(lease)), make_vectors(len(lease.items)))
    commit_shard(lake, Shard(RECIPE, SourceName("photos"), file, (), len(lease.items), 1.0), NOW, lease.holder)


def test_two_alternating_runs_lease_disjoint_images(lake: Lake) -> None:
    seen: list[str] = []
    for number in range(4):
        lease = take_lease(lake, WANTED, 3, (MINE, YOURS)[number % 2], NOW)
        seen += taken(lease)
    assert len(seen) == len(set(seen)) == 12
    assert take_lease(lake, WANTED, 3, MINE, NOW) is None


def test_a_lease_covers_one_recipe_only(lake: Lake) -> None:
    assert taken(take_lease(lake, WANTED, 12, MINE, NOW)) == taken(
        take_lease(lake, FeatureRequest(OTHER, SourceName("photos")), 12, YOURS, NOW)
    )


def test_a_commit_ends_the_lease_of_its_run(lake: Lake) -> None:
    lease = take_lease(lake, WANTED, 8, MINE, NOW)
    assert list_holders(lake, RECIPE, NOW) == [MINE]
    commit(lake, lease)
    assert list_holders(lake, RECIPE, NOW) == []
    assert len(taken(take_lease(lake, WANTED, 8, YOURS, NOW))) == 4


def test_an_expired_lease_can_be_taken_and_a_renewed_one_cannot(lake: Lake) -> None:
    first, second = take_lease(lake, WANTED, 6, MINE, NOW), take_lease(lake, WANTED, 6, YOURS, NOW)
    renew_lease(lake, YOURS, NOW + DURATION / 2)
    assert taken(take_lease(lake, WANTED, 12, "new@elsewhere/3", LATER)) == taken(first)
    assert taken(first).isdisjoint(taken(second))


def test_a_lease_that_a_failed_run_ends_can_be_taken_at_once(lake: Lake) -> None:
    lease = take_lease(lake, WANTED, 12, MINE, NOW)
    end_leases(lake, MINE)
    assert taken(take_lease(lake, WANTED, 12, YOURS, NOW)) == taken(lease)


def test_the_lease_of_a_dead_process_of_this_machine_can_be_taken_at_once(lake: Lake) -> None:
    naming = "from storage.tables.leases import name_holder; print(name_holder())"
    dead = subprocess.run([sys.executable, "-c", naming], capture_output=True, text=True, check=True).stdout.strip()
    alive = name_holder()
    first, second = take_lease(lake, WANTED, 6, alive, NOW), take_lease(lake, WANTED, 6, dead, NOW)
    assert list_holders(lake, RECIPE, NOW) == [alive]
    assert taken(take_lease(lake, WANTED, 12, YOURS, NOW)) == taken(second)
    assert taken(first).isdisjoint(taken(second))


def test_a_pid_of_another_namespace_boot_or_process_tells_nothing_or_the_truth() -> None:
    mine = name_process()
    node, pid, started, namespace, boot = mine.split("/")
    assert find_state(mine) == "alive"
    assert find_state("/".join((node, pid, f"{started}9", namespace, boot))) == "dead"  # its pid was given out again
    for other in (
        (node, pid, started, "4026530000", boot),  # a container with the same host name
        (node, "999999999", started, namespace, "another-boot"),
        (node, "999999999"),  # as earlier releases named it
    ):
        assert find_state("/".join(other)) == "unknown"


def test_a_stopped_run_of_this_machine_may_hold_images_after_its_lease_expired(lake: Lake) -> None:
    first = take_lease(lake, WANTED, 12, name_holder(), NOW)
    assert taken(take_lease(lake, WANTED, 12, YOURS, LATER)) == taken(first)
    assert find_living(lake, LATER).any


def test_a_run_in_another_pid_namespace_keeps_its_lease(lake: Lake) -> None:
    naming = "from storage.tables.leases import name_holder; print(name_holder())"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", naming]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("this system does not let a process have its own PID namespace")
    other = found.stdout.strip()
    take_lease(lake, WANTED, 6, other, NOW)
    assert list_holders(lake, RECIPE, NOW) == [other]  # its pid exists nowhere here, which says nothing


def test_a_run_continues_after_its_last_image_and_then_from_the_start(lake: Lake) -> None:
    first = take_lease(lake, WANTED, 4, MINE, NOW)
    end_leases(lake, MINE)
    assert first
    last = first.items[-1][0]
    second, third = (take_lease(lake, WANTED, 8, MINE, NOW, after=last) for _ in range(2))
    assert min(taken(second)) > last
    assert taken(third) == taken(first)

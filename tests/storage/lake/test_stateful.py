"""Ingest and embed against a dictionary as a model: whatever happens to files and runs, the lake agrees with it."""

import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.strategies import integers, sampled_from

from storage.errors import SourceError
from storage.lake.attach import open_lake
from storage.locations.home import open_home
from storage.names import LabelSetName, SourceName
from storage.progress import silent
from storage.sources.open_image import folder_source
from storage.tables.features import commit_shard
from storage.tables.leases import Lease, take_lease
from storage.tables.missing import FeatureRequest, explain_missing, list_missing
from storage.tables.scans import Scan, commit_scan
from storage.tables.trainings import count_conflicts, list_labelled
from tasks.embed.pipeline import embed_shard
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.encoder.embedder import Embedder
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.counting import Tally, decide_recipe
from tests.pictures import write_image

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = "photos"
BROKEN, CUT_OFF = -1, -2  # bytes that are no image, and an image whose pixels end early
PATHS = sampled_from([f"{name}/{number}.png" for name in ("blue", "green", "red") for number in range(3)])
CONTENTS = sampled_from([0, 1, 2, 3, 4, 5, 6, BROKEN, CUT_OFF])
PICKS = integers(0, 99)


@lru_cache
def make_bytes(content: int) -> bytes:
    if content == BROKEN:
        return b"no image"
    with tempfile.TemporaryDirectory() as folder:
        data = write_image(Path(folder) / "image.png", "red", 100 + content).read_bytes()
    return data[: len(data) // 2] if content == CUT_OFF else data


@lru_cache
def name_image(content: int) -> str:
    return str(uuid.UUID(bytes=sha256(make_bytes(content)).digest()[:16]))


@dataclass(frozen=True)
class File:
    """What lies at a path; a stamp is the time of one write."""

    content: int
    stamp: int


class LakeMachine(RuleBasedStateMachine):
    """Drives a real folder and a real lake with plain functions, and dictionaries beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="frostline-model-"))
        self.root = self.folder / SOURCE
        self.root.mkdir()
        self.now = NOW
        self.lake = open_lake(open_home(self.folder / "home"))
        self.lake.execute("SET threads = 1")  # many small queries: starting threads is their dearest part
        self.tally = Tally(self.folder / "calls")
        self.recipe = decide_recipe(EmbedSettings(), Weights(Path("none"), "0" * 64))
        self.embedder = Embedder(self.recipe, self.tally.embed, 2)
        self.patches = ExitStack()
        for module in ("tasks.ingest.scan", "tasks.embed.find_recipe"):  # opening a lake costs more than all else here
            self.patches.enter_context(patch(f"{module}.read_lake", return_value=nullcontext(self.lake)))
        self.stamp = 0
        self.files: dict[str, File] = {}  # what lies in the folder
        self.scanned: dict[str, File] = {}  # what lay there at the last commit of a scan
        self.known: set[int] = set()  # contents that a committed scan saw
        self.embedded: set[int] = set()
        self.failed: set[int] = set()
        self.failed_before: set[int] = set()
        self.lost = 0  # images that went through the backbone in a shard that was never committed

    @initialize()
    def begin_with_some_files(self) -> None:
        for number, path in enumerate(("blue/0.png", "green/0.png", "green/1.png", "red/0.png", "red/1.png")):
            self.write(path, number)

    @rule(path=PATHS, content=CONTENTS)
    def add_or_change(self, path: str, content: int) -> None:
        self.write(path, content)

    @precondition(lambda self: self.files)
    @rule(pick=PICKS, content=CONTENTS)
    def change_bytes(self, pick: int, content: int) -> None:
        self.write(self.choose(pick), content)

    @precondition(lambda self: self.files)
    @rule(pick=PICKS, to=PATHS)
    def rename_or_relabel(self, pick: int, to: str) -> None:
        path = self.choose(pick)
        if path != to:
            self.place(to)
            (self.root / path).replace(self.root / to)
            self.files[to] = self.files.pop(path)

    @precondition(lambda self: self.files)
    @rule(pick=PICKS, to=PATHS)
    def copy(self, pick: int, to: str) -> None:
        path = self.choose(pick)
        if path != to:
            shutil.copy2(self.root / path, self.place(to))
            self.files[to] = self.files[path]

    @precondition(lambda self: self.files)
    @rule(pick=PICKS)
    def delete(self, pick: int) -> None:
        path = self.choose(pick)
        (self.root / path).unlink()
        del self.files[path]

    @precondition(lambda self: self.files)
    @rule()
    def crash_after_the_scan(self) -> None:
        self.ingest()
        self.check()

    @precondition(lambda self: self.files)
    @rule(committed=integers(0, 2))
    def crash_with_a_shard_in_flight(self, committed: int) -> None:
        self.ingest()
        for number, lease in enumerate(self.claim()):
            if number == committed:
                self.lost += self.embed(lease, commit=False)
                break
            self.embed(lease)
        self.check()

    @rule()
    def run(self) -> None:
        if not self.files:
            with pytest.raises(SourceError, match="no image"):
                self.look()
            return
        planned = self.ingest()
        calls = sum(self.embed(lease) for lease in self.claim())
        assert planned == calls + (CUT_OFF in self.failed and CUT_OFF not in self.failed_before)
        assert list(self.claim()) == []
        self.check()

    def teardown(self) -> None:
        try:
            self.run()
        finally:
            self.patches.close()
            self.lake.close()
            shutil.rmtree(self.folder)

    def choose(self, pick: int) -> str:
        return sorted(self.files)[pick % len(self.files)]

    def place(self, path: str) -> Path:
        (self.root / path).parent.mkdir(exist_ok=True)
        return self.root / path

    def write(self, path: str, content: int) -> None:
        self.stamp += 1
        self.place(path).write_bytes(make_bytes(content))
        os.utime(self.root / path, ns=(self.stamp, self.stamp))
        self.files[path] = File(content, self.stamp)

    def look(self) -> Scan:
        return scan(self.lake.home, SourceName(SOURCE), self.root, IngestSettings(), silent)

    def ingest(self) -> int:
        """Commit a scan, comparing plan and counts with the model's; give how many images are planned."""
        found = self.look()
        plan = Counter[str]()
        for part in explain_missing(self.lake, FeatureRequest(self.recipe.recipe_id, SourceName(SOURCE)), found):
            plan[part.reason] += part.images
        assert plan == self.foresee()
        counts = commit_scan(self.lake, found, NOW)
        here, before = images(self.files.values()), images(self.scanned.values())
        assert (counts.seen, counts.new, counts.gone) == (len(here), len(here - self.known), len(before - here))
        broken = sum(file.content == BROKEN for file in self.files.values())
        opened = sum(self.scanned.get(path) != file for path, file in self.files.items())
        assert (counts.files, counts.opened, counts.failed) == (len(self.files), opened, broken)
        self.scanned = dict(self.files)
        self.known |= here
        self.failed &= here  # what lies nowhere any more is tried again when it returns
        self.failed_before = set(self.failed)
        return sum(plan.values())

    def foresee(self) -> Counter[str]:
        """Say why each image that will be missing is."""
        missing = images(self.files.values()) - self.embedded - self.failed
        changed = {file.content for path, file in self.files.items() if path in self.scanned}
        return Counter(
            "unfinished" if content in self.known else "bytes_changed" if content in changed else "new_image"
            for content in missing
        )

    def claim(self) -> Iterator[Lease]:
        """Claim shards as a run does that begins when the leases of those before it have expired."""
        self.now += timedelta(hours=1)
        wanted = FeatureRequest(self.recipe.recipe_id, SourceName(SOURCE))
        missing = images(self.files.values()) - self.embedded - self.failed
        assert [image_id for image_id, _ in list_missing(self.lake, wanted, 100)] == sorted(map(name_image, missing))
        while lease := take_lease(self.lake, wanted, 2, f"run at {self.now}", self.now):
            yield lease

    def embed(self, lease: Lease, *, commit: bool = True) -> int:
        """Embed one shard; give how many images went through the backbone."""
        shard = embed_shard(
            self.lake.home,
            folder_source(SourceName(SOURCE), self.root),
            self.embedder,
            lease.items,
            1,
            lambda _: None,
        )
        contents = {content for content in self.known if name_image(content) in dict(lease.items)}
        good = contents - {CUT_OFF}
        assert shard.calls == len(good)
        if commit:
            assert commit_shard(self.lake, shard, self.now, lease.holder) == len(good)
            self.embedded |= good
            self.failed |= contents - good
        return len(good)

    def check(self) -> None:
        """Compare what lies in the lake with the model."""
        recipe_id, rows = self.recipe.recipe_id, self.lake.rows
        assert self.tally.images == len(self.embedded) + self.lost
        stored = rows("SELECT image_id::VARCHAR FROM features WHERE recipe_id = ?", [recipe_id])
        assert sorted(stored) == sorted((name_image(content),) for content in self.embedded)
        classes: dict[str, set[str]] = {}
        for path, file in self.scanned.items():
            if file.content != BROKEN:
                classes.setdefault(name_image(file.content), set()).add(path.partition("/")[0])
        expected = [(image_id, name) for image_id, names in classes.items() for name in names]
        assert sorted(rows("SELECT image_id::VARCHAR, class FROM labels")) == sorted(expected)
        assert count_conflicts(self.lake, LabelSetName(SOURCE)) == sum(len(names) > 1 for names in classes.values())
        single = {image_id: min(names) for image_id, names in classes.items() if len(names) == 1}
        trainable = {name_image(content) for content in self.embedded} & set(single)
        assert dict(list_labelled(self.lake, LabelSetName(SOURCE), recipe_id)) == {
            image: single[image] for image in trainable
        }
        failures = rows("SELECT coalesce(image_id::VARCHAR, path) FROM failures")
        broken = [(path,) for path, file in self.scanned.items() if file.content == BROKEN]
        assert sorted(failures) == sorted([*broken, *((name_image(content),) for content in self.failed)])


def images(files: Iterable[File]) -> set[int]:
    """Name the contents that are images."""
    return {file.content for file in files} - {BROKEN}


TestTheLakeSaysWhatADictionaryWouldSay = LakeMachine.TestCase
TestTheLakeSaysWhatADictionaryWouldSay.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, derandomize=True, database=None
)

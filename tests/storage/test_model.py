"""The lake against a dictionary: whatever is added, changed, renamed, deleted, relabelled or cut short."""

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.features import commit_shard, count_missing_after
from storage.files import commit_scan
from storage.lake import open_lake
from storage.paths import open_home
from storage.progress import silent
from storage.recipes import save_recipe
from tasks.embed.engine import Embedder, embed_shard
from tasks.embed.plan import Resolved, list_work, resolve
from tasks.embed.settings import EmbedSettings
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.counting import Tally, fake_modules
from tests.pictures import COLORS, write_image

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARD = 3
names = st.integers(0, 5)
classes = st.sampled_from(sorted(COLORS))
contents = st.integers(0, 7)


class LakeAgainstDictionary(RuleBasedStateMachine):
    """``files`` is what lies where: (class, name) -> content; ``embedded`` is every content that has a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "photos"
        self.home = open_home(self.folder / "home")
        self.tally = Tally(self.folder / "calls")
        sys.modules.update(fake_modules(self.tally))
        self.resolved: Resolved = resolve(self.home, EmbedSettings())
        self.embedder = Embedder(self.resolved.recipe, self.tally.embed, batch=2)
        self.files: dict[tuple[str, int], int] = {}
        self.seen: set[int] = set()
        self.known: set[int] = set()
        self.embedded: set[int] = set()
        self.lost = 0
        self.lake = open_lake(self.home)
        save_recipe(self.lake, self.resolved.request, self.resolved.recipe, NOW)
        self.add("red", 0, 0)

    def path(self, place: tuple[str, int]) -> Path:
        return self.root / place[0] / f"{place[1]}.png"

    @rule(color=classes, name=names, content=contents)
    def add(self, color: str, name: int, content: int) -> None:
        """Add a file, or change the bytes of one."""
        write_image(self.path((color, name)), "red", content)
        self.files[color, name] = content

    @rule(color=classes, name=names, to=classes, as_name=names)
    def move(self, color: str, name: int, to: str, as_name: int) -> None:
        """Rename a file, or relabel it by moving it to another class."""
        if (color, name) in self.files and (to, as_name) not in self.files:
            self.path((to, as_name)).parent.mkdir(parents=True, exist_ok=True)
            self.path((color, name)).rename(self.path((to, as_name)))
            self.files[to, as_name] = self.files.pop((color, name))

    @rule(color=classes, name=names)
    def delete(self, color: str, name: int) -> None:
        if (color, name) in self.files and len(self.files) > 1:
            self.path((color, name)).unlink()
            del self.files[color, name]

    @rule(shards=st.integers(0, 2), committed=st.booleans())
    def crash(self, shards: int, committed: bool) -> None:
        """Run, and stop after some shards; the last one is computed and, if so drawn, not committed."""
        self.ingest()
        work = list_work(self.home, "photos", self.resolved.recipe, SHARD)
        for items in work.shards[:shards]:
            self.embed(items, commit=True)
        if not committed and len(work.shards) > shards:
            self.embed(work.shards[shards], commit=False)

    @rule()
    def run(self) -> None:
        found = scan(self.home, "photos", self.root, IngestSettings(), silent)
        planned = sum(count_missing_after(self.lake, self.resolved.recipe.recipe_id, found).values())
        self.ingest()
        work = list_work(self.home, "photos", self.resolved.recipe, SHARD)
        for items in work.shards:
            self.embed(items, commit=True)
        assert planned == work.images
        self.embedded |= set(self.files.values())
        assert self.lake.value("SELECT count(DISTINCT image_id) FROM features") == len(self.embedded)

    def ingest(self) -> None:
        found = scan(self.home, "photos", self.root, IngestSettings(), silent)
        counts = commit_scan(self.lake, found, NOW)
        now = set(self.files.values())
        assert (counts.seen, counts.new, counts.gone) == (len(now), len(now - self.known), len(self.seen - now))
        self.seen, self.known = now, self.known | now

    def embed(self, items: tuple[tuple[str, str], ...], *, commit: bool) -> None:
        shard = embed_shard(self.home, "photos", self.root, self.embedder, items, 1, lambda _: None)
        if commit:
            assert commit_shard(self.lake, shard, NOW) == len(items)
            contents = {self.files[color, int(Path(name).stem)] for color, name in (p.split("/") for _, p in items)}
            self.embedded |= contents
        else:
            self.lost += len(items)

    @invariant()
    def features_are_unique_and_never_computed_twice(self) -> None:
        twice = "SELECT image_id FROM features GROUP BY image_id, recipe_id HAVING count(*) > 1"
        assert self.lake.rows(twice) == []
        assert self.lake.value("SELECT count(*) FROM features") == len(self.embedded)
        assert self.tally.images == len(self.embedded) + self.lost

    @invariant()
    def labels_and_conflicts_are_what_the_last_scan_saw(self) -> None:
        if self.lake.value("SELECT count(*) FROM scans") == 0:
            return
        found = self.lake.rows("SELECT path, image_id FROM files")
        labels = self.lake.rows("SELECT image_id, class FROM labels")
        assert {(image_id, path.split("/")[0]) for path, image_id in found} == set(labels)
        several = {image_id for image_id, _ in labels if len({c for i, c in labels if i == image_id}) > 1}
        assert {row[0] for row in self.lake.rows("SELECT image_id FROM conflicts")} == several

    def teardown(self) -> None:
        self.lake.close()
        shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def real_modules_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the machine's fakes behind the test."""
    for name in ("tasks.embed.resolve", "tasks.embed.backbone"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
        monkeypatch.delitem(sys.modules, name)


TestLake = LakeAgainstDictionary.TestCase
TestLake.settings = settings(
    max_examples=8,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

"""A release that decodes some kinds of image differently has these, and no others, embedded again."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from storage.lake.attach import open_lake, read_lake
from storage.lake.lake import Lake
from storage.lake.migrate import upgrade
from storage.locations.home import Home
from storage.names import LabelSetName, SourceName
from storage.progress import silent
from storage.recipe import Interpolation
from storage.tables.features import commit_shard
from storage.tables.missing import Counts, FeatureRequest, count_images, count_present, explain_missing
from storage.tables.recipes import save_recipe
from storage.tables.scans import Scan, commit_scan
from storage.tables.trainings import digest_labelled
from storage.vectors.feature_file import Shard, write_features
from tasks.embed.settings import EmbedSettings
from tasks.encoder.backbone.weights import Weights
from tasks.ingest.scan import scan
from tasks.ingest.settings import IngestSettings
from tests.counting import decide_recipe
from tests.encoder.test_decode import encode, photo

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PHOTOS, LABELS = SourceName("photos"), LabelSetName("photos")
XMP = b'<x tiff:Orientation="6"/>'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home, beside a folder with an image whose pixels changed, two that did not, and one that is none."""
    for path, data in {
        "red/turned.jpg": encode(photo(40, 60), "JPEG", xmp=XMP),
        "red/upright.jpg": encode(photo(41, 60), "JPEG"),
        "blue/plain.png": encode(photo(42, 60)),
        "blue/broken.png": b"no image",
    }.items():
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(data)
    return Home(tmp_path / "home")


def look(home: Home) -> Scan:
    return scan(home, PHOTOS, home.root.parent / "photos", IngestSettings(readers=1), silent)


def embed_all(lake: Lake, scanned: Scan, interpolation: Interpolation) -> str:
    """Commit a scan, and features of all its images; return the recipe."""
    commit_scan(lake, scanned, NOW)
    recipe = decide_recipe(EmbedSettings(interpolation=interpolation), Weights(Path(), "0" * 64))
    save_recipe(lake, {"interpolation": interpolation}, recipe, NOW)
    ids = lake.column("SELECT image_id::VARCHAR FROM images ORDER BY ALL")
    file = write_features(lake.home, recipe.recipe_id, ids, np.ones((len(ids), recipe.dim), np.float32))
    commit_shard(lake, Shard(recipe.recipe_id, PHOTOS, file, (), len(ids), 1.0), NOW)
    return recipe.recipe_id


def forget_versions(lake: Lake) -> None:
    """Leave the lake as an earlier release did."""
    lake.commit(lambda: lake.execute("UPDATE images SET decoding = NULL"))


def test_only_images_whose_pixels_changed_lose_their_features_and_only_once(home: Home) -> None:
    with open_lake(home) as lake:
        pass
    scanned = look(home)
    with open_lake(home) as lake:
        wanted = FeatureRequest(embed_all(lake, scanned, "bilinear"), PHOTOS)
        other = FeatureRequest(embed_all(lake, scanned, "nearest"), PHOTOS)  # Pillow always turned these
        forget_versions(lake)
        before = digest_labelled(lake, LABELS, wanted.recipe_id, [])
    scanned = look(home)
    assert scanned.reads.num_rows == 3
    with read_lake(home) as lake:
        assert [(part.reason, part.images) for part in explain_missing(lake, wanted, scanned)] == [
            ("pixels_changed", 1)
        ]
        assert (count_present(lake, wanted, scanned), count_present(lake, other, scanned)) == (2, 3)
    with open_lake(home) as lake:
        commit_scan(lake, scanned, NOW)
        assert count_images(lake, wanted) == Counts(missing=1, present=2)
        assert count_images(lake, other) == Counts(missing=0, present=3)
        embed_all(lake, look(home), "bilinear")
        assert count_images(lake, wanted) == Counts(missing=0, present=3)
        assert digest_labelled(lake, LABELS, wanted.recipe_id, []) != before
    assert look(home).unchanged


def test_what_an_earlier_decoder_refused_is_tried_again_once(home: Home) -> None:
    with open_lake(home) as lake:
        pass
    scanned = look(home)
    with open_lake(home) as lake:
        commit_scan(lake, scanned, NOW)
        assert look(home).reads.num_rows == 0
        for sql in ("ALTER TABLE images DROP COLUMN decoding", "UPDATE lake_version SET version = 7"):
            lake.execute(sql)
        upgrade(lake)
        assert lake.value("SELECT count(*) FROM failures") == 0
    scanned = look(home)
    assert scanned.reads.num_rows == 4
    with open_lake(home) as lake:
        commit_scan(lake, scanned, NOW)
        assert lake.column("SELECT reason FROM failures") == ["not an image"]
    assert look(home).unchanged

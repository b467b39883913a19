"""Mistakes as pictures, beside examples of their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.lake.lake import Lake
from storage.sources.copies import ImageCopy, choose_copies
from tasks.train.report.mistakes import Mistake, Predictions, find_examples
from tasks.train.report.thumbnails import Thumbnail, make_thumbnail

EXAMPLES = 3
"""Examples of each label that has mistakes."""

Files = Mapping[str, ImageCopy]
"""Files by image id; images that no source lists any more are missing."""


@dataclass(frozen=True)
class MistakeCard:
    """A mistake to show; ``name`` is its path within its source, or its image id."""

    predicted: str
    probability: float
    name: str
    thumbnail: Thumbnail | None


@dataclass(frozen=True)
class MistakeGroup:
    """A label's mistakes and examples of it; ``right`` of its ``images`` test images were predicted right."""

    label: str
    right: int
    images: int
    examples: Sequence[Thumbnail]
    mistakes: Sequence[MistakeCard]


def group_mistakes(lake: Lake, predictions: Predictions, mistakes: Sequence[Mistake]) -> list[MistakeGroup]:
    """Group mistakes by label and add examples; the label of the most confident mistake comes first."""
    labels = dict.fromkeys(mistake.label for mistake in mistakes)
    examples = {label: find_examples(predictions, label, EXAMPLES) for label in labels}
    image_ids = [mistake.image_id for mistake in mistakes] + [each for some in examples.values() for each in some]
    files = choose_copies(lake, image_ids)
    return [_make_group(label, predictions, mistakes, examples[label], files) for label in labels]


def _make_group(
    label: str, predictions: Predictions, mistakes: Sequence[Mistake], examples: Sequence[str], files: Files
) -> MistakeGroup:
    same_label = predictions.labels == label
    return MistakeGroup(
        label,
        int(predictions.right[same_label].sum()),
        int(same_label.sum()),
        [thumbnail for image_id in examples if (thumbnail := make_thumbnail(files.get(image_id), image_id))],
        [_make_card(mistake, files) for mistake in mistakes if mistake.label == label],
    )


def _make_card(mistake: Mistake, files: Files) -> MistakeCard:
    file = files.get(mistake.image_id)
    name = file.locator.path if file else mistake.image_id
    return MistakeCard(mistake.predicted, mistake.probability, name, make_thumbnail(file, mistake.image_id))

"""What a scan would take away from a source: images that the lake has in it and that are in none of its files now."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.lake.lake import Lake
from storage.plural import pluralize
from storage.tables.scans import Scan

MAX_NAMES, MAX_EXAMPLES = 5, 3
"""The number of classes and of files that a message names."""
FEW = 5
"""A source or a class of at most as many images may lose any of them."""
_AFTER = """SELECT image_id FROM _reads WHERE image_id IS NOT NULL
  UNION SELECT image_id FROM files SEMI JOIN _listing USING (path) ANTI JOIN _reads USING (path)
  WHERE source = $1 AND image_id IS NOT NULL"""


@dataclass(frozen=True)
class Loss:
    """How many images there were, and how many of them are gone."""

    images: int
    gone: int

    def exceeds(self, share: float) -> bool:
        """Return whether more than a share is gone, of more than a few images."""
        return self.images > FEW and self.gone > share * self.images


@dataclass(frozen=True)
class Vanished:
    """The loss of a source and of each of its classes that lost an image, and some of the files that are gone."""

    whole: Loss = Loss(0, 0)
    classes: Mapping[str, Loss] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def exceeds(self, share: float) -> bool:
        """Return whether more than a share of the source or of one of its classes is gone."""
        return any(loss.exceeds(share) for loss in (self.whole, *self.classes.values()))

    def __str__(self) -> str:
        """Describe what is gone: how many images, of which classes, and some paths."""
        worst = sorted(self.classes.items(), key=lambda item: (-item[1].gone / item[1].images, item[0]))
        names = [f"{name} {loss.gone} of {loss.images}" for name, loss in worst]
        more = f", {pluralize(len(names) - MAX_NAMES, 'more class', 'more classes')}" if len(names) > MAX_NAMES else ""
        of_classes = f" ({', '.join(names[:MAX_NAMES])}{more})" if names else ""
        paths = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.whole.gone} of {pluralize(self.whole.images, 'image')} gone{of_classes}{paths}"


def find_vanished(lake: Lake, scan: Scan) -> Vanished:
    """Find what will be gone from a source once a scan is committed."""
    source, label_set = scan.listing.source, scan.listing.label_set
    with lake.temporary_tables(_listing=scan.listing.files, _reads=scan.reads):
        images, gone = lake.rows(
            f"""SELECT count(*), count(*) FILTER (image_id NOT IN ({_AFTER}))
                FROM (SELECT DISTINCT image_id FROM files WHERE source = $1 AND image_id IS NOT NULL)""",
            [source],
        )[0]
        if not gone:
            return Vanished(Loss(images, 0))
        classes = lake.rows(
            f"""SELECT class, count(*), count(*) FILTER (image_id NOT IN ({_AFTER})) AS gone
                FROM (SELECT DISTINCT image_id, class FROM labels WHERE label_set = $2
                      AND image_id IN (SELECT image_id FROM files WHERE source = $1))
                GROUP BY class HAVING gone > 0""",
            [source, label_set],
        )
        examples = lake.column(
            f"""SELECT path FROM files WHERE source = $1 AND image_id IS NOT NULL AND image_id NOT IN ({_AFTER})
                ORDER BY path LIMIT {MAX_EXAMPLES}""",
            [source],
        )
    return Vanished(Loss(images, gone), {name: Loss(count, lost) for name, count, lost in classes}, tuple(examples))

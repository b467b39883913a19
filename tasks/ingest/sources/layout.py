"""What the folders of a source mean: which level names the class, and which gives the split."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from storage.plural import pluralize

SPLIT_FOLDERS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that a folder of each name gives, in any case."""
AUTO, CLASS, SPLIT, OTHER = "auto", "class", "split", "*"
MAX_NAMES = 5
"""The number of folders that a message names."""
CHOICES = (
    "--ingest.layout class if the first folder is the class, split/class or class/split if folders are splits,"
    " '*/class' if the second folder is the class"
)


@dataclass(frozen=True)
class Layout:
    """The meaning of each level of folders: ``class``, ``split`` or ``*``, as in ``split/class``.

    Deeper folders mean nothing. Several levels of ``class`` together name the class.
    """

    text: str

    def read(self, folder: str) -> tuple[str | None, str | None]:
        """Return the class and the split of the files in a folder, given by its path below the root."""
        names, levels = folder.split("/") if folder else [], self.text.split("/")
        classes = [name for name, level in zip(names, levels, strict=False) if level == CLASS]
        splits = [_find_split(name) for name, level in zip(names, levels, strict=False) if level == SPLIT]
        return "/".join(classes) if len(classes) == levels.count(CLASS) else None, splits[0] if splits else None


@dataclass(frozen=True)
class Recognised:
    """The layout of a folder, and in words why it may be another one, or else what was decided."""

    layout: Layout
    doubt: str | None = None
    note: str | None = None


def recognise(folders: Collection[str]) -> Recognised:
    """Recognise what folders mean.

    Args:
        folders: The paths, below the root, of the folders that have images in them.
    """
    below = defaultdict[str, set[str]](set)
    """The second folder of each path, by the first; empty for images that have no second folder."""
    for folder in filter(None, folders):
        first, _, rest = folder.partition("/")
        below[first].add(rest.partition("/")[0])
    split_like = sorted(name for name in below if _find_split(name))
    if split_like:
        return _recognise_splits(below, split_like)
    seconds = set[str]().union(*below.values())
    if seconds and all(map(_find_split, seconds)) and "train" in map(_find_split, seconds):
        note = f"the folders {_list(seconds)} in each class are given splits"
        return Recognised(Layout("class/split"), note=note)
    if len(below) > 1 and len(seconds) > 1 and "" not in seconds and all(names == seconds for names in below.values()):
        doubt = f"the folders {_list(below)} have the same folders in them, {_list(seconds)}: either may be the classes"
        return Recognised(Layout(CLASS), doubt=doubt)
    return Recognised(Layout(CLASS), note=_describe_trees(below))


def _recognise_splits(below: Mapping[str, set[str]], split_like: Collection[str]) -> Recognised:
    """Recognise folders of which some are named like splits."""
    training = [name for name in split_like if _find_split(name) == "train"]
    others = below.keys() - set(split_like)
    if training and not others and any(below[name] - {""} for name in training):
        note = f"the folders {_list(split_like)} are given splits of the classes in them"
        return Recognised(Layout("split/class"), note=note)
    nouns = ("folder", "a class or a split") if len(split_like) == 1 else ("folders", "classes or splits")
    doubt = f"the {nouns[0]} {_list(split_like)} may be {nouns[1]}"
    return Recognised(Layout(CLASS), doubt=doubt)


def _describe_trees(below: Mapping[str, set[str]]) -> str | None:
    """Describe folders within classes, if there are any."""
    deeper = [f"{first}/{second}" for first, names in below.items() for second in names if second]
    if not deeper:
        return None
    number = pluralize(len(deeper), "folder lies within a class and counts", "folders lie within classes and count")
    return f"{number} as part of {'it' if len(deeper) == 1 else 'them'}: {_list(deeper)}"


def _find_split(name: str) -> str | None:
    return SPLIT_FOLDERS.get(name.lower())


def _list(names: Collection[str]) -> str:
    """List names, a few of many."""
    shown = sorted(names)[:MAX_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

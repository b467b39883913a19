"""Types for three kinds of names that often have the same value and must not be confused."""

from typing import NewType

SourceName = NewType("SourceName", str)
"""The name of a source: where images come from."""
LabelSetName = NewType("LabelSetName", str)
"""The name of a label set: one question about images."""
ModelName = NewType("ModelName", str)
"""The name of a model in the registry; a model answers one label set."""

"""Names of three things that are often called the same and must not be confused."""

from typing import NewType

SourceName = NewType("SourceName", str)
"""Names where images come from."""
LabelSetName = NewType("LabelSetName", str)
"""Names one question asked about images."""
ModelName = NewType("ModelName", str)
"""Names a model in the registry; a model answers one label set."""

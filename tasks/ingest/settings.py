"""The settings of ingesting a source."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

LAYOUT = re.compile(r"(?!.*split.*split)(class|split|\*)(/(class|split|\*))*")


class IngestSettings(BaseModel):
    """From a source to images and labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_pixels: int = Field(
        178_956_970,
        ge=1,
        le=178_956_970,
        description="Refuse images with more pixels than this: they may be decompression bombs.",
    )
    readers: int = Field(8, ge=1, le=256, description="Threads that read and hash new files.")
    layout: str = Field(
        "auto",
        description="What the folders below the source mean, level by level: class; split/class or class/split for"
        " folders such as train and test; '*/class' if the first level means nothing; class/class for classes such as"
        " animal/cat. By default recognised, and refused if in doubt.",
    )
    max_gone: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Refuse a run if more than this share of the images of the source, or of a class of more than 5, is"
        " gone since the last one; --accept-gone confirms.",
    )

    @field_validator("layout")
    @classmethod
    def _check_layout(cls, layout: str) -> str:
        if layout != "auto" and not (LAYOUT.fullmatch(layout) and "class" in layout):
            raise ValueError(
                f"layout {layout!r} must be auto, or class, split and * joined by slashes, such as split/class"
            )
        return layout

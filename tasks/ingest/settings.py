"""The settings of ingesting a source."""

from pydantic import BaseModel, ConfigDict, Field


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

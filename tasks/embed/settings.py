"""What a user decides about embedding."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.recipe import Decoder, Dtype, Interpolation, Pooling


class EmbedSettings(BaseModel):
    """From images to features, through a frozen backbone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "timm/tf_efficientnet_lite0", description="The network: timm/NAME or torchvision/NAME, as the library names it."
    )
    weights: str = Field(
        "embedded",
        description="Its weights: 'embedded' (come with Frostline, for timm/tf_efficientnet_lite0), "
        "'torchvision:ResNet18_Weights.IMAGENET1K_V1', 'timm:resnet18.a1_in1k', or a .safetensors or .pth file.",
    )
    cut: str = Field(
        "avgpool",
        description="Where freezing ends: 'avgpool' freezes all but the classifier; 'input' nothing; "
        "any other layer by its name.",
    )
    pooling: Pooling = Field("average", description="A cut before the pooling: average over places, or keep them all.")
    resize: int | None = Field(None, ge=1, description="Pixels of the shorter side; by default the network's own.")
    crop: int | None = Field(None, ge=1, description="Pixels of the square middle; by default the network's own.")
    interpolation: Interpolation | None = Field(None, description="How to resize; by default the network's own.")
    views: int = Field(
        0,
        ge=0,
        le=64,
        description="Random windows of each image to train on beside it, mirrored or not; each is computed once.",
    )
    decoder: Decoder = Field(
        "full",
        description="'full' decodes every pixel; 'scaled' decodes large JPEGs at a fraction of their size: faster, "
        "slightly other vectors, a recipe of their own; 'gpu' decodes JPEGs on the GPU, likewise.",
    )
    dtype: Dtype | str = Field(
        "auto",
        pattern="^(auto|float32|bfloat16|float16)$",
        description="Numbers to compute in; 'auto' takes bfloat16 where the hardware is fast at it, float32 elsewhere, "
        "and keeps to it.",
    )
    stored: str = Field("float16", pattern="^(float16|float32)$", description="Precision to which vectors are rounded.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where to compute: auto, cpu, cuda:0.")
    batch: int | None = Field(
        None, ge=1, description="Images a batch; by default what suits the device: 8 a core, 256 on a GPU."
    )
    decoders: int | None = Field(
        None, ge=1, le=256, description="Threads, beside a GPU processes, that read and decode; by default one a core."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Compile the backbone first; 'auto' where that saves more time than it takes."
    )
    shard: int | None = Field(
        None, ge=1, description="Images a commit, which is what a crash can cost; by default half a minute of work."
    )
    max_failed: float = Field(
        0.5, ge=0, le=1, description="Share of the source's images that may have failed before the run does."
    )

    @property
    def network(self) -> tuple[str, str, int | None, str]:
        """What decides where the network can be cut: backbone, weights, crop and stored precision."""
        return self.backbone, self.weights, self.crop, self.stored

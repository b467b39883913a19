"""The settings of embedding."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.recipe import Decoder, Dtype, Interpolation, Pooling
from tasks.encoder.pixels.budget import DEFAULT, Budget


class EmbedSettings(BaseModel):
    """From images to features, with a frozen backbone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "timm/tf_efficientnet_lite0", description="The network: timm/NAME or torchvision/NAME, as the library names it."
    )
    weights: str = Field(
        "embedded",
        description="The weights: 'embedded' (shipped with Frostline, for timm/tf_efficientnet_lite0), "
        "'torchvision:ResNet18_Weights.IMAGENET1K_V1', 'timm:resnet18.a1_in1k', or a .safetensors or .pth file.",
    )
    cut: str = Field(
        "avgpool",
        description="Where freezing ends: 'avgpool' freezes all but the classifier, 'input' freezes nothing; "
        "or any other layer's name.",
    )
    pooling: Pooling = Field(
        "average", description="For a cut before the pooling: 'average' over positions, or keep them all ('flatten')."
    )
    resize: int | None = Field(
        None, ge=1, description="Resize the shorter side to this many pixels; by default the network's own."
    )
    crop: int | None = Field(
        None, ge=1, description="Side of the square center crop in pixels; by default the network's own."
    )
    interpolation: Interpolation | None = Field(
        None, description="Interpolation when resizing; by default the network's own."
    )
    views: int = Field(
        0,
        ge=0,
        le=64,
        description="Random crops of each image, some mirrored, to train on as well; each is computed once.",
    )
    decoder: Decoder = Field(
        "full",
        description="'full' decodes every pixel; 'scaled' decodes large JPEGs at a fraction of their size, which is "
        "faster; 'gpu' decodes JPEGs on the GPU. Each yields slightly different vectors, hence has its own recipe.",
    )
    dtype: Dtype | str = Field(
        "auto",
        pattern="^(auto|float32|bfloat16|float16)$",
        description="Number format to compute in; 'auto' chooses bfloat16 if the hardware computes it fast, otherwise "
        "float32, and records the choice.",
    )
    stored: str = Field(
        "float16", pattern="^(float16|float32)$", description="Precision to which stored vectors are rounded."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Device to compute on: auto, cpu, cuda or cuda:0."
    )
    batch: int | None = Field(
        None, ge=1, description="Images per batch; by default what suits the device: 8 per core, 256 on a GPU."
    )
    decoders: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads (with a GPU, processes) that read and decode images; by default one per core.",
    )
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = Field(
        "auto",
        description="What runs the network on a CPU; 'auto' tries what is installed once per network and machine, and "
        "takes the fastest that yields the same vectors.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Compile the backbone first; 'auto' does so if that saves more time than it takes."
    )
    shard: int | None = Field(
        None, ge=1, description="Images per commit, which is the most a crash can cost; by default 10 s of work."
    )
    max_failed: float = Field(
        0.5, ge=0, le=1, description="Share of the source's images that may fail; with more, the run fails."
    )

    max_bytes: int = Field(
        DEFAULT.bytes,
        ge=1_000_000,
        description="Memory that decoding one image may take, in bytes, in runs and in the models that they register;"
        " larger images fail with that reason.",
    )
    max_seconds: float = Field(
        DEFAULT.seconds, gt=0, description="CPU seconds that decoding one image may take; slower ones fail."
    )
    decode_bytes: int = Field(
        DEFAULT.together,
        ge=1_000_000,
        description="Memory that all images decoded at the same time by one process may take, in bytes.",
    )

    @property
    def budget(self) -> Budget:
        """What decoding may take."""
        return Budget(self.max_bytes, self.max_seconds, self.decode_bytes)

    @property
    def network(self) -> tuple[str, str, int | None, str]:
        """What determines where the network can be cut: backbone, weights, crop and stored precision."""
        return self.backbone, self.weights, self.crop, self.stored

"""The settings of training and of a search."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator, model_validator

Kind = Literal["softmax", "ridge", "prototypes", "knn", "mlp", "mlp2", "tail"]
Frozen = Literal["softmax", "ridge", "prototypes", "knn", "mlp", "mlp2"]
"""Kinds that keep the whole backbone frozen."""
REFITTED: tuple[Kind, ...] = ("softmax", "ridge", "prototypes", "knn")
"""Kinds that can be fitted without validation images."""
Positive = Annotated[FiniteFloat, Field(gt=0)]


class TailSettings(BaseModel):
    """Fine-tuning the backbone's layers after the cut, with a new head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rates: tuple[Positive, ...] = Field(
        (1e-4,), min_length=1, description="Learning rates of the pretrained layers, to choose from."
    )
    head_factor: FiniteFloat = Field(10.0, ge=1, description="Learning rate of the new head, as a multiple of theirs.")
    weight_decay: FiniteFloat = Field(0.01, ge=0, description="Weight decay of the pretrained layers' weights.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum 0.9.")
    epochs: int = Field(10, ge=1, description="Passes over the training images; the best epoch is kept.")
    batch: int = Field(32, ge=1, description="Maximum number of images per step.")
    batch_norms: bool = Field(False, description="Update the statistics of batch norm layers, instead of keeping them.")


class TrainSettings(BaseModel):
    """How heads are trained on features and labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(
        0, ge=0, description="Random seed. Images are dealt to splits by it; another seed splits them anew."
    )
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the images for choosing the best head.")
    test: float = Field(0.15, gt=0, lt=1, description="Share of the images held out for testing.")
    split: Literal["hash", "time"] = Field(
        "hash",
        description="How images are split: by hash, each class is dealt to all splits and an image never changes its"
        " split; by time, the newest images are for testing, those before for validation, and images change splits as"
        " data grows.",
    )
    group: str | None = Field(
        None,
        description="Keep groups of images in one split: a regular expression for paths below the source, whose first"
        r" capturing group is the name of the image's group, such as '^[^/]+/(patient\d+)_'.",
    )
    near_duplicates: bool = Field(False, description="Keep near-duplicates, by features and looks, in one split.")
    folds: int | None = Field(
        None,
        ge=0,
        description="Cross-validate the chosen head by group over this many folds, at least 3; 0 to skip. By default 5"
        " folds if there are fewer than 100 test images and no tail to train.",
    )
    heads: tuple[Kind, ...] = Field(
        ("softmax",),
        min_length=1,
        description="Kinds of heads to choose from; mlp2 has two hidden layers, tail fine-tunes after the cut.",
    )
    l2: tuple[Positive, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        min_length=1,
        description="Strengths of the L2 penalty to choose from, for softmax and ridge.",
    )
    nearest: tuple[PositiveInt, ...] = Field(
        (1, 5, 20), min_length=1, description="Numbers of neighbours to choose from, for knn."
    )
    hidden: int = Field(256, ge=1, description="Width of the first hidden layer; the second has half as many units.")
    learning_rates: tuple[Positive, ...] = Field(
        (1e-3, 3e-3), min_length=1, description="Learning rates to choose from, for mlp and mlp2."
    )
    weight_decays: tuple[Annotated[FiniteFloat, Field(ge=0)], ...] = Field(
        (1e-2, 1e-1), min_length=1, description="Weight decays to choose from, for mlp and mlp2."
    )
    epochs: int = Field(30, ge=1, description="Passes of mlp and mlp2 over the training images.")
    tail: TailSettings = Field(TailSettings(), description="Fine-tuning the backbone's layers after the cut.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Device for training tails: cpu, cuda:0.")
    class_weights: bool = Field(False, description="Weight rare classes up, so that all classes count equally.")
    leave_out: tuple[str, ...] = Field((), description="Classes to leave out.")
    refit: bool = Field(
        False,
        description="Fit the chosen head once more, on the training and validation images together; its temperature"
        " comes from folds.",
    )
    iterations: int = Field(500, ge=1, description="Maximum number of L-BFGS steps.")
    multi_label: bool = Field(False, description="Multi-label: an image in several class folders has all their labels.")
    false_accept: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Answer 'neither' when unsure, so that at most this share of images of unknown classes is given a"
        " class; by default every image is given one. A low rate refuses many known images, too: the run says"
        " how many, and suggests a usable rate.",
    )
    average_views: bool = Field(
        False, description="Average predictions over the image and its embed.views; a served model computes them."
    )

    @field_validator("group")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        try:
            has_group = pattern is None or re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"group {pattern!r} is not a regular expression: {error}") from error
        if not has_group:
            raise ValueError(f"group {pattern!r} has no capturing group, which would be the name of the group")
        return pattern

    @field_validator("folds")
    @classmethod
    def _check_folds(cls, folds: int | None) -> int | None:
        if folds in (1, 2):
            raise ValueError(f"folds {folds} must be 3 or more: one to test, one to validate, the rest to train")
        return folds

    @property
    def plain(self) -> bool:
        """Whether images are split one by one, without groups."""
        return self.split == "hash" and self.group is None and not self.near_duplicates

    @property
    def scheme(self) -> str:
        """What decides where images are placed, as JSON: under another scheme they are placed anew.

        Written as the lake's migration writes it in SQL, which escapes no letters.
        """
        grouping = {"group": self.group, "near_duplicates": self.near_duplicates}
        shares = {"seed": self.seed, "test": self.test, "validation": self.validation}
        return json.dumps(
            {name: value for name, value in grouping.items() if value} | shares,
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.multi_label and self.heads != type(self).model_fields["heads"].default:
            raise ValueError(
                f"heads {self.heads} predict one class per image: leave them at their default with multi_label"
            )
        if self.multi_label and self.false_accept is not None:
            raise ValueError(
                f"false_accept {self.false_accept} is not supported with multi_label, which may predict no label"
            )
        if "tail" in self.heads and self.false_accept is not None:
            raise ValueError(f"false_accept {self.false_accept} would train ten tails: leave false_accept or tail out")
        if "tail" in self.heads and self.folds:
            raise ValueError(f"folds {self.folds} would train as many tails: leave folds or tail out")
        if self.refit and (self.multi_label or not set(self.heads) <= set(REFITTED)):
            chosen = "multi_label" if self.multi_label else f"heads {self.heads}"
            raise ValueError(f"refit is not supported with {chosen}, which need validation images: leave refit out")
        if self.average_views and self.false_accept is not None:
            raise ValueError(f"false_accept {self.false_accept} ignores views: leave average_views out")
        return self


class SearchSettings(BaseModel):
    """How `frostline train --cut auto` searches for the best cut."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: float = Field(
        30.0, gt=0, description="Minutes for the search; what would take longer is skipped or stopped."
    )
    bytes: int = Field(
        2_000_000_000, ge=0, description="Bytes for features at other cuts than embed.cut, before compression."
    )
    cuts: int = Field(5, ge=1, description="Number of cuts at which heads are tried.")
    heads: tuple[Frozen, ...] = Field(
        ("softmax", "ridge", "prototypes"), min_length=1, description="Kinds of heads to try at each cut."
    )
    tails: int = Field(2, ge=0, description="Number of best cuts at which to train a tail; 0 to try heads only.")

"""What a user decides about training."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator, model_validator

Kind = Literal["softmax", "ridge", "prototypes", "knn", "mlp", "mlp2", "tail"]
Frozen = Literal["softmax", "ridge", "prototypes", "knn", "mlp", "mlp2"]
"""Kinds that leave the whole backbone frozen."""
Positive = Annotated[FiniteFloat, Field(gt=0)]


class TailSettings(BaseModel):
    """The backbone's layers after the cut, trained with a new head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rates: tuple[Positive, ...] = Field(
        (1e-4,), min_length=1, description="Learning rates of the pretrained layers to choose from."
    )
    head_factor: FiniteFloat = Field(10.0, ge=1, description="How many times faster the new head learns than they do.")
    weight_decay: FiniteFloat = Field(0.01, ge=0, description="Weight decay of the pretrained layers' weights.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum 0.9.")
    epochs: int = Field(10, ge=1, description="How often each image is seen; the best epoch is kept.")
    batch: int = Field(32, ge=1, description="Most images a step.")
    batch_norms: bool = Field(False, description="Let batch norms follow the batches; else they keep their statistics.")


class TrainSettings(BaseModel):
    """From features and labels to a head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(
        0, ge=0, description="Decides the split of each image, with its id or its group and nothing else."
    )
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the images on which the best head is chosen.")
    test: float = Field(0.15, gt=0, lt=1, description="Share of the images on which the model is measured, once.")
    split: Literal["hash", "time"] = Field(
        "hash",
        description="By hash an image never moves; by time the newest images measure, those before them choose, and"
        " images move as data grows.",
    )
    group: str | None = Field(
        None,
        description="A group never straddles splits: a regular expression over each file's path below the source,"
        r" whose first group in parentheses names the image's, such as '^[^/]+/(patient\d+)_'.",
    )
    near_duplicates: bool = Field(False, description="Near-duplicates share a split: alike in features and looks.")
    folds: int = Field(
        0, ge=0, description="Cross-validate the chosen head by group over so many folds, three or more; 0 is none."
    )
    heads: tuple[Kind, ...] = Field(
        ("softmax",),
        min_length=1,
        description="Kinds of heads to choose from; mlp2 has two hidden layers, tail the backbone's after the cut.",
    )
    l2: tuple[Positive, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        min_length=1,
        description="Strengths of the L2 penalty to choose from, of softmax and ridge.",
    )
    nearest: tuple[PositiveInt, ...] = Field(
        (1, 5, 20), min_length=1, description="Numbers of neighbours to choose from, of knn."
    )
    hidden: int = Field(256, ge=1, description="Width of the first hidden layer; the second has half of it.")
    learning_rates: tuple[Positive, ...] = Field(
        (1e-3, 3e-3), min_length=1, description="Learning rates to choose from, of mlp and mlp2."
    )
    weight_decays: tuple[Annotated[FiniteFloat, Field(ge=0)], ...] = Field(
        (1e-2, 1e-1), min_length=1, description="Weight decays to choose from, of mlp and mlp2."
    )
    epochs: int = Field(30, ge=1, description="How often mlp and mlp2 see each image.")
    tail: TailSettings = Field(TailSettings(), description="Training the backbone's layers after the cut.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where tails are trained: cpu, cuda:0.")
    class_weights: bool = Field(False, description="Weigh rare classes up, so that every class counts the same.")
    leave_out: tuple[str, ...] = Field((), description="Classes to leave out.")
    iterations: int = Field(500, ge=1, description="Most steps of L-BFGS.")
    multi_label: bool = Field(
        False, description="An image in several class folders has all those labels, each learned by a sigmoid."
    )
    false_accept: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Answer 'neither' where the head is unsure, so that of images of unknown classes at most this share"
        " is given a class; by default every image is.",
    )
    average_views: bool = Field(
        False, description="Answers average over the image and its embed.views, which a served model then computes."
    )

    @field_validator("group")
    @classmethod
    def _names_a_group(cls, pattern: str | None) -> str | None:
        try:
            named = pattern is None or re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"group {pattern!r} is no regular expression: {error}") from error
        if not named:
            raise ValueError(f"group {pattern!r} has no part in parentheses, which would name the group")
        return pattern

    @field_validator("folds")
    @classmethod
    def _are_enough(cls, folds: int) -> int:
        if folds in (1, 2):
            raise ValueError(f"folds {folds} must be 3 or more: one is asked, one calibrates, the rest train")
        return folds

    @property
    def plain(self) -> bool:
        """Whether an image's split follows from its id alone."""
        return self.split == "hash" and self.group is None and not self.near_duplicates

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _labels_have_heads_of_their_own(self) -> Self:
        if self.multi_label and self.heads != type(self).model_fields["heads"].default:
            raise ValueError(
                f"heads {self.heads} give one class an image: with multi_label leave them at their default"
            )
        if self.multi_label and self.false_accept is not None:
            raise ValueError(f"false_accept {self.false_accept} has no use with multi_label, which may give no label")
        if "tail" in self.heads and self.false_accept is not None:
            raise ValueError(f"false_accept {self.false_accept} would train ten tails, each without some classes")
        if "tail" in self.heads and self.folds:
            raise ValueError(f"folds {self.folds} would train as many tails: leave folds or tail out")
        if self.average_views and self.false_accept is not None:
            raise ValueError(f"false_accept {self.false_accept} is chosen on images alone: leave average_views out")
        return self


class SearchSettings(BaseModel):
    """How deep to freeze, as `frostline train --cut auto` finds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: float = Field(
        30.0, gt=0, description="Minutes for a search; what would take longer is not begun, or is ended."
    )
    bytes: int = Field(
        2_000_000_000, ge=0, description="Bytes, before compression, of features at cuts that are not embed's own."
    )
    cuts: int = Field(5, ge=1, description="At how many cuts heads are tried.")
    heads: tuple[Frozen, ...] = Field(
        ("softmax", "ridge", "prototypes"), min_length=1, description="Kinds of heads that are tried at each cut."
    )
    tails: int = Field(2, ge=0, description="At how many of the best cuts a tail is trained; 0 tries heads alone.")

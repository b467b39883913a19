"""What a user decides about training."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainSettings(BaseModel):
    """From features and labels to a head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, description="Decides the split of each image, with its id and nothing else.")
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the images on which L2 is chosen.")
    test: float = Field(0.15, gt=0, lt=1, description="Share of the images on which the model is measured, once.")
    l2: tuple[float, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1, description="Strengths of the L2 penalty to choose from."
    )
    class_weights: bool = Field(False, description="Weigh rare classes up, so that every class counts the same.")
    leave_out: tuple[str, ...] = Field((), description="Classes to leave out.")
    iterations: int = Field(500, ge=1, description="Most steps of L-BFGS.")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on")
        if any(value <= 0 for value in self.l2):
            raise ValueError(f"l2 {self.l2} must be positive")
        return self

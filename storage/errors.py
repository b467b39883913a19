"""The errors of all rooms: every message names the value, the rule that it broke, and the remedy."""


class FrostlineError(Exception):
    """An error that the user can fix; the command line prints it as one line and exits with 2."""

    def __init__(self, value: str, rule: str, remedy: str) -> None:
        super().__init__(value, rule, remedy)
        self.value, self.rule, self.remedy = value, rule, remedy

    def __str__(self) -> str:
        """Return the message as one line."""
        end = "" if self.remedy.endswith("?") else "."
        return " ".join(f"{self.value}: {self.rule}. {self.remedy}{end}".split())


class SettingsError(FrostlineError):
    """An invalid setting."""


class OutputError(FrostlineError):
    """Output that cannot be written."""


class NotCanonicalError(FrostlineError):
    """A value without a canonical form, which cannot be part of an identity."""


class SourceError(FrostlineError):
    """A source that does not exist, is empty, or is a different one under the same name."""


class ImageError(FrostlineError):
    """An image whose file cannot be read or holds other bytes now."""


class LakeError(FrostlineError):
    """A lake that cannot be opened, read or written."""


class LakeTooNewError(LakeError):
    """A lake written by a later release."""


class LakeUnreachableError(LakeError):
    """A catalog or an object store that does not answer."""


class LakeBusyError(LakeError):
    """A commit that lost too many races."""


class QueryError(LakeError):
    """A query that is invalid, or about something that does not exist."""


class ExportError(FrostlineError):
    """An export that cannot be written."""


class EraseError(FrostlineError):
    """An erasure that is ambiguous, or not confirmed."""


class EmbedError(FrostlineError):
    """Images that cannot be embedded as requested."""


class BackboneError(EmbedError):
    """An architecture, or a cut of it, that does not exist."""


class WeightsError(EmbedError):
    """Weights that are missing, cannot be downloaded, or do not fit their architecture."""


class NumbersChangedError(EmbedError):
    """A library, a driver or a device computes vectors that differ from those of the recipe."""


class FailureBudgetError(EmbedError):
    """More failures in a run than the settings allow."""


class TrainError(FrostlineError):
    """Labels with which no head can be trained or measured."""


class ReviewError(FrostlineError):
    """A review that cannot be written, or whose decisions cannot be applied."""


class RegistryError(FrostlineError):
    """A problem with the model registry, or a registered model whose predictions are wrong."""


class RegistryUnreachableError(RegistryError):
    """A model registry that does not answer."""


class OrchestratorError(FrostlineError):
    """A Prefect server that does not answer."""

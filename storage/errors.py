"""The one tree of errors: every message names the value, the rule it broke and the remedy."""


class FrostlineError(Exception):
    """What a user can mend; the command line prints it as one line and exits with 2."""

    def __init__(self, value: str, rule: str, remedy: str) -> None:
        super().__init__(value, rule, remedy)
        self.value, self.rule, self.remedy = value, rule, remedy

    def __str__(self) -> str:
        """Write the message as one line."""
        end = "" if self.remedy.endswith("?") else "."
        return " ".join(f"{self.value}: {self.rule}. {self.remedy}{end}".split())


class SettingsError(FrostlineError):
    """A setting that no run could follow."""


class OutputError(FrostlineError):
    """An answer that cannot be written."""


class NotCanonicalError(FrostlineError):
    """A value that has no canonical form and so cannot be part of an identity."""


class SourceError(FrostlineError):
    """A source that is not there, is empty, or is another one than its name says."""


class LakeError(FrostlineError):
    """A lake that cannot be opened, read or written."""


class LakeTooNewError(LakeError):
    """A lake that a later release wrote."""


class LakeUnreachableError(LakeError):
    """A catalog or an object store that does not answer now."""


class LakeBusyError(LakeError):
    """A commit that lost its race too often."""


class QueryError(LakeError):
    """SQL that the lake refused."""


class ExportError(FrostlineError):
    """An export that cannot be written where or how it was asked for."""


class EraseError(FrostlineError):
    """An erasure that is not clear, or not confirmed."""


class EmbedError(FrostlineError):
    """An embedding that cannot be done as asked."""


class BackboneError(EmbedError):
    """An architecture, or a cut of it, that does not exist."""


class WeightsError(EmbedError):
    """Weights that are missing, cannot be fetched, or do not fit their architecture."""


class NumbersChangedError(EmbedError):
    """A library, a driver or a device computes other vectors than the recipe's."""


class FailureBudgetError(EmbedError):
    """More failures in one run than the settings allow."""


class TrainError(FrostlineError):
    """Labels from which no head can be trained or measured."""


class ReviewError(FrostlineError):
    """A review that cannot be made, or whose decisions cannot be taken back."""


class RegistryError(FrostlineError):
    """A model registry that does not answer, or a model that answers wrongly."""


class RegistryUnreachableError(RegistryError):
    """A model registry that does not answer now."""


class OrchestratorError(FrostlineError):
    """A Prefect server that does not answer."""

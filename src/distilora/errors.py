"""Defines the errors that a user may meet; the command prints each as one line and exits with its code.

DistiloraError             exit 2
├── ConfigError            a setting is unknown, of the wrong type, or contradicts another
├── DataError              the data are missing, malformed or unusable
├── MissingExtra           an optional dependency is not installed; the message says what to install
├── EncoderError           an encoder cannot be found, read or adapted
├── ArtifactError          a saved model is missing, damaged or of another schema
├── OutputError            the output cannot be written: the disk is full, or another run holds the folder
├── EngineError            the cluster to compute on cannot be reached, or fails
├── RoundTripError         exit 1: a reloaded model does not give back its own outputs
├── ParityError            exit 1: an exported model does not answer as the original does
└── Interrupted            exit 128 + signal: training stopped on request, after saving a checkpoint
"""


class DistiloraError(Exception):
    """Base class of all errors that distilora raises on purpose; `str(error)` is one line naming the field and the fix."""

    exit_code = 2


class ConfigError(DistiloraError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(DistiloraError):
    """The data are missing, malformed or unusable."""


class MissingExtra(DistiloraError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, otherwise: str = "") -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'distilora[{extra}]'{otherwise}")


class EncoderError(DistiloraError):
    """An encoder cannot be found, read or adapted."""


class ArtifactError(DistiloraError):
    """A saved model is missing, damaged or of another schema."""


class OutputError(DistiloraError):
    """The output cannot be written: the disk is full, or another run holds the folder."""


class EngineError(DistiloraError):
    """The cluster to compute on cannot be reached, or fails."""


class RoundTripError(DistiloraError):
    """A reloaded model does not give back its own outputs."""

    exit_code = 1


class ParityError(DistiloraError):
    """An exported model does not answer as the original does."""

    exit_code = 1


class Interrupted(DistiloraError):
    """Training stopped on request, after saving a checkpoint."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number

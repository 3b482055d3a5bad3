"""Defines how a request is refused: a status, a kind for machines and one line for people.

Refusal
├── UnknownModel      404 unknown_model      no model has that name; nothing else answers in its place
├── NoCorrections     404 no_corrections     the service keeps no corrections
├── WrongTask         422 wrong_task         the model's task is asked through another route
├── Invalid           422 invalid            an input that cannot be read, named
├── TooMany           422 too_many           more inputs in a request than the limit
├── TooLong           422 too_long           more characters or tokens in an input, or tokens in a request, than the limit
├── TooLarge          413 too_large          more bytes in the body than the limit
├── TooSlow           408 too_slow           the body does not arrive
├── Unsupported       415 unsupported        the body is of another kind, or compressed
├── NoSuchRoute       404 no_such_route      nothing is there
├── WrongMethod       405 wrong_method       something is there, for another method
├── NotLoaded         422 not_loaded         a model to add cannot be loaded, or does not answer as it was saved
├── ClientGone        499 client_gone        nobody is there to be answered; for the log
├── Unauthorised      401 unauthorised       no key, or a wrong one
├── Overloaded        429 overloaded         the queue is full; `retry_after` seconds would do
├── DeadlinePassed    504 deadline_passed    the answer would have come too late
├── Draining          503 draining           the service is being stopped
├── CorrectionsFull   507 corrections_full   the file of corrections has reached its limit
└── Failed            500 failed             a model failed; the log says how
"""

from typing import ClassVar

from distilora.errors import DistiloraError


class Refusal(DistiloraError):
    """A request that is not answered; `field` is the part of the request that is at fault, if one is."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.field, self.retry_after = field, retry_after


class UnknownModel(Refusal):
    """No model has the name."""

    status, kind = 404, "unknown_model"


class NoCorrections(Refusal):
    """The service keeps no corrections."""

    status, kind = 404, "no_corrections"


class WrongTask(Refusal):
    """The model's task is asked through another route."""

    status, kind = 422, "wrong_task"


class Invalid(Refusal):
    """The request, or an input of it, cannot be read."""

    status, kind = 422, "invalid"


class TooMany(Refusal):
    """More inputs in a request than the limit."""

    status, kind = 422, "too_many"


class TooLong(Refusal):
    """More characters or tokens than a limit."""

    status, kind = 422, "too_long"


class TooLarge(Refusal):
    """More bytes in the body than the limit."""

    status, kind = 413, "too_large"


class TooSlow(Refusal):
    """The body does not arrive."""

    status, kind = 408, "too_slow"


class Unsupported(Refusal):
    """The body is of another kind than what is read here."""

    status, kind = 415, "unsupported"


class NoSuchRoute(Refusal):
    """Nothing answers at the path."""

    status, kind = 404, "no_such_route"


class WrongMethod(Refusal):
    """The path is for another method."""

    status, kind = 405, "wrong_method"


class NotLoaded(Refusal):
    """A model to add cannot be loaded, or does not answer as it was saved."""

    status, kind = 422, "not_loaded"


class ClientGone(Refusal):
    """The client hung up before it was answered."""

    status, kind = 499, "client_gone"


class Unauthorised(Refusal):
    """No key was given, or a wrong one."""

    status, kind = 401, "unauthorised"


class Overloaded(Refusal):
    """The queue is full."""

    status, kind = 429, "overloaded"


class DeadlinePassed(Refusal):
    """The answer would have come too late."""

    status, kind = 504, "deadline_passed"


class Draining(Refusal):
    """The service is being stopped."""

    status, kind = 503, "draining"


class CorrectionsFull(Refusal):
    """The file of corrections has reached its limit."""

    status, kind = 507, "corrections_full"


class Failed(Refusal):
    """A model failed to compute."""


def stopped() -> Draining:
    """Return the refusal of what comes, or is not answered, while the service is being stopped."""
    return Draining("the service is being stopped; ask again in a while", retry_after=5)

"""What can go wrong, in the words of the domain. A refused call changes nothing."""

from __future__ import annotations


class DomainError(Exception):
    """A call that cannot be carried out. `reason` is UPPER_SNAKE_CASE and stable, for programs; the message is for people."""

    reason = "DOMAIN_ERROR"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.reason


class InvalidArgument(DomainError):
    """A field of the call has a value that it cannot have, whatever the state of the service.

    `field` is its path in the request, such as `study.spec.parameters[2].float_spec.low`.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description

    def within(self, prefix: str) -> InvalidArgument:
        """The same error seen from a message that contains the field: `low` within `parameters[2]` is `parameters[2].low`."""
        separator = "" if not self.field or self.field.startswith("[") else "."
        return InvalidArgument(f"{prefix}{separator}{self.field}", self.description)


class NotFound(DomainError):
    """What the call names does not exist."""

    reason = "NOT_FOUND"


class AlreadyExists(DomainError):
    """What the call would create exists with another content."""

    reason = "ALREADY_EXISTS"


class FailedPrecondition(DomainError):
    """The state of the study or trial does not allow the call."""

    reason = "FAILED_PRECONDITION"


STUDY_BUSY = "STUDY_BUSY"
"""Reason of an Unavailable that concerns one study alone: others have kept it locked for too long."""


DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
"""Reason of an Unavailable: the database does not answer, or cannot do what it is for, as on a full disk."""

COMMIT_UNKNOWN = "COMMIT_UNKNOWN"
"""Reason of an Unavailable: the database was lost while it committed."""

DATABASE_FAULTS = frozenset({DATABASE_UNAVAILABLE, COMMIT_UNKNOWN})
"""Reasons that are no caller's doing: whoever runs the service has to see to the database."""


class Unavailable(DomainError):
    """The service cannot answer now; trying again is right."""

    reason = "UNAVAILABLE"


class Overloaded(DomainError):
    """There is more to do than the service takes on; nothing was done. `retry_after`, in seconds, is when to come again."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutOfTime(DomainError):
    """The answer would have taken longer than the call or the service allows."""

    reason = "OUT_OF_TIME"


class Conflict(Exception):
    """Two asks on one study met: nothing was changed, the caller reads again and retries. Never leaves the application layer."""

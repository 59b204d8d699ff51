"""The error tree. Every error a person can act on has its own class; its message says what, got, allowed.

Imports nothing of the project, so that every package may raise from here. `status` is the HTTP status the
API answers with; keeping it beside the error saves a second table that could drift.
"""

from collections.abc import Iterable


class IsoflopError(Exception):
    """Something a user or operator can act on."""

    status = 400
    title = "request refused"


class InvalidInput(IsoflopError):
    """An argument, field, file or document breaks a rule that the message states."""

    status = 422
    title = "invalid input"


class UnknownName(IsoflopError):
    """A name refers to nothing that exists.

    Args:
        kind: what was looked up, e.g. "model".
        got: the name given.
        allowed: names that would have worked.
    """

    status = 422
    title = "unknown name"

    def __init__(self, *, kind: str, got: str, allowed: Iterable[str]) -> None:
        self.kind, self.got, self.allowed = kind, got, sorted(allowed)
        choices = ", ".join(self.allowed) if self.allowed else "none registered yet"
        super().__init__(f"unknown {kind} {got!r}; known: {choices}")


class NotFound(IsoflopError):
    """A resource addressed by id does not exist."""

    status = 404
    title = "not found"


class Conflict(IsoflopError):
    """The request contradicts what is stored: another document under the same key, a stale version, a finished job."""

    status = 409
    title = "conflict"


class BudgetTooSmall(IsoflopError):
    """The budget does not cover one sample. The message says what one costs."""

    status = 422
    title = "budget too small"


class BudgetExceeded(IsoflopError):
    """A reservation would pass the limit. Carries both numbers.

    Args:
        account: name of the account, e.g. "job:7f3a flops".
        asked: amount asked for, in the account's unit.
        available: what is left unreserved.
    """

    status = 409
    title = "budget exceeded"

    def __init__(self, *, account: str, asked: int, available: int) -> None:
        self.account, self.asked, self.available = account, asked, available
        super().__init__(f"{account}: asked {asked:,}, available {available:,}")


class StaleAttempt(IsoflopError):
    """A receipt came from an attempt that is no longer the current one; its work is waste, its rows are refused."""

    status = 409
    title = "stale attempt"


class CorruptFile(IsoflopError):
    """A file's content does not match what was recorded. The message names the file."""

    status = 500
    title = "corrupt file"


class AlreadyRunning(IsoflopError):
    """Somebody else holds what a service needs for itself: its data directory, database or port."""

    status = 409
    title = "already running"


class Unreachable(IsoflopError):
    """The service does not answer. The message says the address and how to start it."""

    status = 503
    title = "unreachable"

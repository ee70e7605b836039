"""HTTP statuses of the library's errors: one table, by class.

A class that isn't in it has the status of its nearest base. Two classes have two statuses each,
since their fields say whether the handler may have run: see `http_status`.
"""

from __future__ import annotations

import attrs

from .._errors import (
    ActivationFailed,
    ArgumentError,
    CallCycle,
    CallTimeout,
    DefinitionError,
    ForeignHandle,
    InvalidAlarm,
    InvalidMessage,
    InvalidObjectId,
    InvalidOnceKey,
    InvalidTenant,
    MailboxFull,
    NoRuntime,
    ObjectNotRunning,
    OnceKeyReused,
    OnceMessageDied,
    Overloaded,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    StateDecodeError,
    StateTooLarge,
    StorageError,
    TenantDropped,
    UnknownHandler,
    UnknownObjectType,
    WatchInTurn,
    WrongEventLoop,
)


@attrs.frozen
class ErrorStatus:
    """The answer to a request whose call has raised an error of the library."""

    status: int
    """The HTTP status."""
    text: str
    """A sentence for the client. It names no object, file or database."""
    retryable: bool
    """True if the same request may succeed before long, without a change of the program."""
    may_have_run: bool
    """True unless the handler that the error names certainly hasn't run and never will.

    A request that may have run, and is repeated, may happen twice; a once-key prevents that. If the
    handler was called by another one, the turn of that one was rolled back, but what it had called
    before was not.
    """

    @property
    def retry_after(self) -> int | None:
        """Seconds to wait before a repetition; None if it is of no use."""
        return _RETRY_SECONDS if self.retryable else None

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After``, if the request is retryable."""
        return {"Retry-After": str(_RETRY_SECONDS)} if self.retryable else {}


_RETRY_SECONDS = 1

_NOT_FOUND = ErrorStatus(404, "not found", retryable=False, may_have_run=False)
_FAILED = ErrorStatus(500, "the server has an error", retryable=False, may_have_run=True)
_REFUSED = attrs.evolve(_FAILED, may_have_run=False)
_BUSY = ErrorStatus(
    503, "too many requests; this one was not carried out: try again", True, may_have_run=False
)
_LATE = ErrorStatus(504, "no answer in time; it may still be carried out", True, may_have_run=True)
_UNSURE = ErrorStatus(
    503, "not available now; the request may have been carried out", True, may_have_run=True
)
_UNAVAILABLE = ErrorStatus(
    503, "not available now; the request was not carried out: try again", True, may_have_run=False
)

_STATUSES: dict[type[BaseException], ErrorStatus] = {
    # --- the client's ---
    InvalidObjectId: _NOT_FOUND,
    InvalidTenant: _NOT_FOUND,
    InvalidOnceKey: ErrorStatus(
        400, "this idempotency key can't be one", retryable=False, may_have_run=False
    ),
    OnceKeyReused: ErrorStatus(
        422, "this idempotency key came with another request before", False, may_have_run=False
    ),
    StateTooLarge: ErrorStatus(
        413, "it would become too large; nothing was changed", False, may_have_run=True
    ),
    # --- of the moment ---
    Overloaded: _BUSY,
    MailboxFull: _BUSY,
    CallTimeout: _LATE,
    OwnerLost: _UNSURE,
    RuntimeClosed: _UNSURE,
    StorageError: _UNSURE,
    TenantDropped: _UNAVAILABLE,
    # --- faults of the program, found before a turn has begun ---
    ActivationFailed: _REFUSED,
    ArgumentError: _REFUSED,
    CallCycle: _REFUSED,
    DefinitionError: _REFUSED,
    ForeignHandle: _REFUSED,
    InvalidAlarm: _REFUSED,
    InvalidMessage: _REFUSED,
    NoRuntime: _REFUSED,
    ObjectNotRunning: _REFUSED,
    OnceMessageDied: _REFUSED,
    StateDecodeError: _REFUSED,
    UnknownHandler: _REFUSED,
    UnknownObjectType: _REFUSED,
    WatchInTurn: _REFUSED,
    WrongEventLoop: _REFUSED,
}


def http_status(error: BaseException) -> ErrorStatus:
    """The answer to a request whose call has raised ``error``.

    Its text is for the client. That of the error is for the log, since it names objects and files.
    500 is for faults of the program, its data or its deployment, and of exceptions that aren't the
    library's.
    """
    if isinstance(error, CallTimeout) and not error.may_have_run:
        return _BUSY
    if isinstance(error, PersistenceError) and error.action == "load":
        return _UNAVAILABLE
    found = (_STATUSES[cls] for cls in type(error).__mro__ if cls in _STATUSES)
    return next(found, _FAILED)

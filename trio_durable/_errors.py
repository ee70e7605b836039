"""The tree of errors that the library raises.

    DurableError
    ├── DefinitionError            a class body that isn't allowed
    ├── UnknownObjectType          no such class
    ├── UnknownHandler             no such handler of the class
    │   └── NotOnHandle            a member of the class that handles don't have
    ├── InvalidObjectId            an id that can't name an object
    ├── InvalidTenant              a name that can't name a tenant
    ├── InvalidAlarm               an alarm that can't be set, or a payload of another type
    ├── InvalidMessage             a message that can't be sent
    │   └── TooManyMessages        more than one turn may send
    ├── InvalidOnceKey             a once-key that can't be one, or is given where it can't be
    ├── ArgumentError              arguments that don't fit the handler, or can't be copied
    ├── CallFailed
    │   ├── CallTimeout            (also a TimeoutError)
    │   │   └── MailboxFull
    │   ├── Overloaded             it is unlikely to finish in time
    │   ├── CallCycle
    │   ├── OwnerLost              it was sent to a process that has ended
    │   ├── ObjectNotRunning
    │   ├── StateConflict          put_state(expected=…) found another state
    │   ├── ActivationFailed       after_load raised
    │   ├── HandlerCancelled
    │   ├── TurnTimeout            (also a TimeoutError) longer than the handler's limit
    │   ├── TurnInterrupted        by stop(interrupt=True)
    │   ├── TurnWontEnd            it resists stop(interrupt=True)
    │   ├── ReadonlyViolation
    │   ├── CommitRefused          ctx.commit() in the turn of a message, or with a once-key
    │   ├── OnceKeyReused          the once-key was used for another call
    │   ├── OnceReplyUnreadable    the stored reply doesn't fit this release
    │   ├── OnceMessageDied        the message with the once-key is a dead letter
    │   ├── AlarmSuperseded        set or cancelled while its handler ran
    │   ├── AlarmCrashed           the process died in each of its last deliveries
    │   ├── AlarmUnhandled         a recurring one, whose class doesn't declare it here
    │   ├── ReplyError             a result that can't be copied
    │   └── ReplyDecodeError       a reply of another process that doesn't fit the handler
    ├── RemoteError                an error in another process, of a class that isn't known here
    ├── StateEncodeError           state that JSON can't represent exactly
    │   └── StateTooLarge
    ├── StateDecodeError           stored state that doesn't fit the class
    │   └── StateTooNew            written at a later schema
    ├── StorageError
    │   ├── StorageUnavailable     it can't be opened
    │   │   ├── StorageInUse
    │   │   ├── StorageMoved       it was moved to another storage
    │   │   └── SchemaTooNew
    │   └── PersistenceError       a load or commit failed
    │       └── StaleObject        another owner wrote the object or took its alarm
    └── UsageError
        ├── NoRuntime              none is open here, or several are
        ├── RuntimeClosed
        ├── WrongEventLoop
        ├── TenantDropped          while a tenant is being dropped
        ├── ForeignHandle          unpickled outside of its runtime
        ├── NotInTurn              self.ctx was used outside a turn
        └── WatchInTurn            a watch was opened in a turn

An error can be pickled. Its fields are its object and its data; its message ends with the remedy.
"""

from __future__ import annotations

import os
from typing import Self

import attrs

from ._keys import ObjectKey

_error = attrs.define(slots=False, eq=False, repr=False, str=False)


class DurableError(Exception):
    """Base of all errors of this library."""

    def _message(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        return self._message()

    def __reduce__(self) -> tuple[object, ...]:
        # CallTimeout inherits OSError's with TimeoutError, which keeps only two arguments.
        return (type(self), self.args, self.__dict__)

    def __copy__(self) -> Self:
        # Each waiting caller gets an error of its own, and all copies have the same cause.
        other = type(self)(*self.args)
        other.__dict__.update(self.__dict__)
        other.__cause__ = self.__cause__
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message()!r})"


# --- definition and addressing -------------------------------------------------------------------


@_error
class DefinitionError(DurableError, TypeError):
    """The definition of a durable object class is invalid."""

    cls: str
    member: str
    problem: str

    def _message(self) -> str:
        where = f"{self.cls}.{self.member}" if self.member else self.cls
        return f"{where}: {self.problem}"


@_error
class UnknownObjectType(DurableError, LookupError):
    """The runtime knows no durable object class of this name."""

    type_name: str
    known: tuple[str, ...]

    def _message(self) -> str:
        known = ", ".join(self.known) or "none"
        return (
            f"no durable object class is known as {self.type_name!r} (known: {known}); "
            "import the module that defines it, or pass the class in DurableRuntime(objects=…)"
        )


@_error
class UnknownHandler(DurableError, AttributeError):
    """The class has no handler of this name."""

    type_name: str
    handler: str
    known: tuple[str, ...]

    def _message(self) -> str:
        known = ", ".join(self.known) or "none"
        return (
            f"{self.type_name} has no handler {self.handler!r} (it has: {known}); "
            "handlers are methods marked with @handler, and state is read with get_state()"
        )


@_error
class NotOnHandle(UnknownHandler):
    """The class has a member of this name that handles don't have, or a handle was to be changed.

    To type checkers a handle is an instance of the class, so they allow it.
    """

    key: ObjectKey | None
    """The handle's object; None where a method of the handle doesn't know it."""
    problem: str

    def _message(self) -> str:
        known = ", ".join(self.known) or "none"
        return (
            f"this is a handle of {self.key or self.type_name}, which has handlers only "
            f"(it has: {known}), and {self.problem}; add a handler for it, or read the state with "
            "runtime.get_state()"
        )


@_error
class InvalidObjectId(DurableError, ValueError):
    """The id can't name an object."""

    type_name: str
    object_id: str
    problem: str

    def _message(self) -> str:
        return (
            f"{self.object_id} can't be the id of a {self.type_name}: {self.problem}; "
            "an id is a str of 1 to 512 bytes in UTF-8, without NUL"
        )


@_error
class InvalidTenant(DurableError, ValueError):
    """The name can't name a tenant."""

    tenant: str
    problem: str

    def _message(self) -> str:
        return (
            f"{self.tenant} can't be the name of a tenant: {self.problem}; a name has 1 to 48 "
            "lowercase letters, digits, - and _, and begins with a letter or digit"
        )


@_error
class InvalidAlarm(DurableError, ValueError):
    """The arguments can't set an alarm, or its payload isn't of the requested type."""

    key: ObjectKey
    name: str
    problem: str

    def _message(self) -> str:
        return f"alarm {self.name} of {self.key}: {self.problem}"


@_error
class InvalidMessage(DurableError, ValueError):
    """The arguments can't make a message, or it can't be sent from here."""

    key: ObjectKey
    handler: str
    problem: str

    def _message(self) -> str:
        return f"message {self.handler} to {self.key}: {self.problem}"


@_error
class TooManyMessages(InvalidMessage):
    """The turn would send more messages than one turn may. Nothing of it is sent."""


@_error
class InvalidOnceKey(DurableError, ValueError):
    """A once-key that can't be one, or a call that can't have one."""

    key: ObjectKey
    handler: str
    problem: str

    def _message(self) -> str:
        return f"once-key of {self.handler} on {self.key}: {self.problem}"


@_error
class ArgumentError(DurableError, TypeError):
    """The arguments of a call don't fit the handler, or can't be passed by value."""

    key: ObjectKey
    handler: str
    problem: str

    def _message(self) -> str:
        return f"call of {self.handler} on {self.key}: {self.problem}"


# --- calls ---------------------------------------------------------------------------------------


@_error
class CallFailed(DurableError):
    """Base of the errors of a single call, which the object survives."""

    key: ObjectKey
    handler: str

    def _where(self) -> str:
        return f"{self.handler} on {self.key}"


@_error
class CallTimeout(CallFailed, TimeoutError):
    """No reply came in time.

    A turn that has begun still runs to its end. If ``may_have_run`` is False, none has begun.
    """

    timeout: float
    activity: str
    may_have_run: bool = True

    def _message(self) -> str:
        advice = "it did not run: call again, or with a longer timeout"
        if self.may_have_run:
            advice = "a turn that has begun still runs to its end: check its effect before you "
            advice += "call again"
        return (
            f"{self._where()} gave no reply within {self.timeout:g} s ({self.activity}); {advice}"
        )


@_error
class MailboxFull(CallTimeout):
    """The mailbox was full, and the call's turn didn't come in time. The call never ran."""

    mailbox_size: int
    may_have_run: bool = attrs.field(default=False, init=False)

    def _message(self) -> str:
        return (
            f"{self._where()} found the mailbox full, with {self.mailbox_size} calls queued, and "
            f"its turn did not come within {self.timeout:g} s ({self.activity}); it did not run: "
            "slow the callers down, shorten the handler, or raise mailbox_size"
        )


@_error
class Overloaded(CallFailed):
    """The calls ahead make this one unlikely to finish within its timeout. It never ran."""

    timeout: float
    activity: str

    def _message(self) -> str:
        return (
            f"{self._where()} is unlikely to finish within {self.timeout:g} s ({self.activity}); "
            "it did not run: slow the callers down, and call again later"
        )


@_error
class CallCycle(CallFailed):
    """A deadlock: the call would close a circle of objects that wait for each other."""

    path: tuple[ObjectKey, ...]

    def _message(self) -> str:
        circle = " → ".join(str(key) for key in self.path)
        return (
            f"{self._where()} would wait for itself ({circle}); "
            "move the shared work into a plain method, or let one side return before the other asks"
        )


@_error
class OwnerLost(CallFailed):
    """The object's process has ended or lost its lease. It isn't known whether the turn has run."""

    problem: str = ""

    def _message(self) -> str:
        problem = self.problem or "it was sent to a process of the cluster that has ended"
        return (
            f"{self._where()} was cut off: {problem}; it isn't known whether it ran: check its "
            "effect before you call again"
        )


@_error
class ObjectNotRunning(CallFailed):
    """The object isn't in memory."""

    def _message(self) -> str:
        return (
            f"{self._where()}: the object is not running; "
            "call it, or start it with ensure_started(), first"
        )


@_error
class StateConflict(CallFailed):
    """Another state is stored than the one that ``put_state`` expected. Nothing was written."""

    expected: int
    """The revision that was expected; 0 for none."""
    revision: int
    """The revision that is stored; 0 if nothing is."""
    digest: str | None
    """The digest of the stored state, see `Snapshot.digest`; None if nothing is stored."""
    json: str | None
    """The stored text; None if nothing is stored. Bytes that aren't UTF-8 are replaced."""

    def _message(self) -> str:
        expected = f"revision {self.expected}" if self.expected else "no stored state"
        stored = f"revision {self.revision} is stored" if self.revision else "none is stored"
        if self.revision and self.revision == self.expected:
            stored = "another state is stored under that revision"
        return (
            f"{self._where()} expected {expected}, but {stored}: nothing was written; merge the "
            "change with the error's json, and repeat it with expected=(error.revision, "
            "error.digest)"
        )


@_error
class ActivationFailed(CallFailed):
    """The object's ``after_load`` raised.

    Its error is the ``__cause__``, and the next call tries again.
    """

    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} raised {self.problem}, so the object could not start; "
            "nothing was changed, and the next call activates it again"
        )


@_error
class HandlerCancelled(CallFailed):
    """The handler was cancelled by code that it awaits, not by its caller."""

    def _message(self) -> str:
        return (
            f"{self._where()} was cancelled from within and rolled back; it awaits "
            "something that other code cancelled: await only what no other code cancels"
        )


@_error
class TurnTimeout(CallFailed, TimeoutError):
    """The turn took longer than its ``limit``; it was cancelled and rolled back.

    Commits that it made with ``ctx.commit()`` before stay, and a call that it was waiting for may
    have run.
    """

    limit: float

    def _message(self) -> str:
        return (
            f"{self._where()} exceeded its limit of {self.limit:,g} s; it was cancelled, and "
            "rolled back to its last ctx.commit(), but calls and requests that it made may have "
            "taken effect: check them before you call again, or raise the limit"
        )


@_error
class TurnInterrupted(CallFailed):
    """The turn was cancelled by ``runtime.stop(…, interrupt=True)``, and rolled back.

    Commits that it made with ``ctx.commit()`` before stay, and a call that it was waiting for may
    have run.
    """

    def _message(self) -> str:
        return (
            f"{self._where()} was interrupted by runtime.stop(interrupt=True), and rolled back to "
            "its last ctx.commit(), but calls and requests that it made may have taken effect: "
            "check them before you call again"
        )


@_error
class TurnWontEnd(CallFailed):
    """A turn still runs, though ``runtime.stop(…, interrupt=True)`` has cancelled it.

    The object stays in memory, and busy. The turn is rolled back when it ends.
    """

    timeout: float

    def _message(self) -> str:
        return (
            f"{self._where()} still runs {self.timeout:g} s after runtime.stop(interrupt=True) "
            "cancelled it, so the object was not stopped; change the handler, which shields itself "
            "or catches the cancellation, and let the cancellation through"
        )


@_error
class CommitRefused(CallFailed):
    """``ctx.commit()`` in a turn that is to happen once: of a message, or with a once-key."""

    def _message(self) -> str:
        return (
            f"{self._where()} handles a message or has a once-key, so ctx.commit() would let a "
            "part of it happen once more at each attempt; send the second half to yourself with "
            "self.ctx.send()"
        )


@_error
class OnceKeyReused(CallFailed):
    """The once-key belongs to another call of the object. This one did not run."""

    once_key: str
    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} has the once-key {self.once_key!r:.80}, which was used for "
            f"{self.problem}; it did not run: give each call a key of its own, and repeat a call "
            "with the same arguments"
        )


@_error
class OnceReplyUnreadable(CallFailed):
    """The reply that is stored under the once-key can't be decoded. The call has run, once."""

    once_key: str
    reply: str
    """The reply, as JSON."""
    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} has run under the once-key {self.once_key!r:.80}, but its reply "
            f"{self.reply:.200} can't be read by this release: {self.problem}; it doesn't run "
            "again: read the reply attribute of this error"
        )


@_error
class OnceMessageDied(CallFailed):
    """The message that was sent with the once-key is a dead letter. The call did not run."""

    once_key: str
    message_id: str
    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} was sent as a message under the once-key {self.once_key!r:.80}, and "
            f"is a dead letter: {self.problem}; correct the handler, and call "
            f"retry_message({self.message_id!r})"
        )


@_error
class ReadonlyViolation(CallFailed):
    """A readonly handler changed state or staged an effect; its turn was rolled back."""

    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} is marked readonly but {self.problem}; it was rolled back. "
            "Drop readonly=True, or work on a copy"
        )


@_error
class AlarmSuperseded(CallFailed):
    """The alarm was set again or cancelled while its handler ran; the turn was rolled back."""

    def _message(self) -> str:
        return (
            f"{self._where()} handled an alarm that was set again or cancelled meanwhile; "
            "the turn was rolled back, and the alarm's new setting applies"
        )


@_error
class AlarmCrashed(CallFailed):
    """The process died in each of the last deliveries of the alarm, which is a dead letter now."""

    crashes: int

    def _message(self) -> str:
        n = self.crashes
        deliveries = "its last delivery" if n == 1 else f"each of its last {n} deliveries"
        return (
            f"{self._where()} is an alarm, and the process died in {deliveries}, so it is kept as "
            "a dead letter; correct the handler and call retry_alarm(), or cancel_alarm()"
        )


@_error
class AlarmUnhandled(CallFailed):
    """No handler of the class is for this recurring alarm. The alarm is kept for another release.

    ``trio-durable alarms cancel`` ends it, if its method was renamed or removed for good.
    """

    def _message(self) -> str:
        return (
            f"recurring alarm {self.handler} of {self.key} has no handler in this release and is "
            "kept; cancel it if its method is gone for good"
        )


@_error
class ReplyError(CallFailed):
    """The result can't be copied for the caller; the turn was rolled back."""

    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} returned what can't be copied: {self.problem}; "
            "the turn was rolled back. Return plain data"
        )


@_error
class ReplyDecodeError(CallFailed):
    """The reply that another process sent doesn't fit the handler here. The handler has run.

    The two processes run different releases of the class.
    """

    problem: str

    def _message(self) -> str:
        return (
            f"{self._where()} has run, but its reply can't be read here: {self.problem}; its "
            "changes are stored: deploy the same release of the class to all processes"
        )


@_error
class RemoteError(DurableError):
    """An exception of another process that can't be raised here as it was there.

    Its class isn't imported here or was made in a function, or its message depends on values that
    can't be sent.
    """

    type_name: str
    """The class, with its module."""
    problem: str
    """The message."""

    def _message(self) -> str:
        raised = f"{self.type_name}: {self.problem}" if self.problem else self.type_name
        return (
            f"{raised} (raised in another process; to catch its class here, import the class, "
            "and give it plain arguments)"
        )


# --- state ---------------------------------------------------------------------------------------


@_error
class StateEncodeError(DurableError, ValueError):
    """State that JSON can't represent exactly; the turn was rolled back."""

    key: ObjectKey
    field: str
    problem: str

    def _message(self) -> str:
        return f"state of {self.key} can't be stored: field {self.field}: {self.problem}"


@_error
class StateTooLarge(StateEncodeError):
    """Encoded state exceeds the limit; the turn was rolled back."""

    size: int
    limit: int

    def _message(self) -> str:
        return (
            f"state of {self.key} takes {self.size:,} bytes of JSON, over the limit of "
            f"{self.limit:,}; split the object, or raise max_state_size"
        )


@_error
class StateDecodeError(DurableError, ValueError):
    """Stored state doesn't fit the class. The row is left untouched."""

    key: ObjectKey
    field: str
    place: str
    problem: str

    def _message(self) -> str:
        field = f"field {self.field}" if self.field else "the stored value"
        return (
            f"stored state of {self.key} can't be read: {field} at {self.place}: {self.problem}; "
            "the row was left untouched: fix the class (or the row) and call again"
        )


@_error
class StateTooNew(StateDecodeError):
    """Stored state has a later schema than the class. The row is left untouched."""

    stored_schema: int
    schema: int

    def _message(self) -> str:
        return (
            f"stored state of {self.key} has schema {self.stored_schema}, and this code knows it "
            f"up to schema {self.schema}; the row was left untouched: upgrade the code"
        )


# --- storage -------------------------------------------------------------------------------------


class StorageError(DurableError):
    """Base of the errors of the storage."""


@_error
class StorageUnavailable(StorageError):
    """The storage can't be opened or read."""

    location: str
    problem: str

    def _message(self) -> str:
        return f"can't use {self.location}: {self.problem}"


@_error
class StorageInUse(StorageUnavailable):
    """Another runtime holds the storage. Its ``host`` is "" if that is this machine."""

    pid: int | None
    host: str = ""
    remedy: str = "stop its process first"

    def _message(self) -> str:
        if self.pid == os.getpid() and not self.host:
            return f"{self.location} is in use by a runtime of this process; share that runtime"
        holder = f"process {self.pid}" if self.pid else "another process"
        if self.host:
            holder += f" on {self.host}"
        if self.problem:
            holder += f" ({self.problem})"
        return f"{self.location} is in use by a runtime of {holder}; {self.remedy}"


@_error
class StorageMoved(StorageUnavailable):
    """The storage was moved to another one, the ``target``, which is to be opened in its place."""

    target: str

    def _message(self) -> str:
        return (
            f"{self.location} was {self.problem} to {self.target}; open that storage, or, if that "
            "copy isn't used, take the mark back with `trio-durable reopen`"
        )


@_error
class SchemaTooNew(StorageUnavailable):
    """The tables were migrated by a newer release."""

    unknown: tuple[str, ...]

    def _message(self) -> str:
        return (
            f"{self.location} was migrated by a newer release of trio_durable "
            f"(unknown here: {', '.join(self.unknown)}); upgrade this installation"
        )


@_error
class PersistenceError(StorageError):
    """A turn could not be committed, or an object could not be loaded.

    The instance is dropped; the next call starts from the stored state.
    """

    key: ObjectKey
    action: str
    problem: str

    def _message(self) -> str:
        return (
            f"could not {self.action} {self.key}: {self.problem}; "
            "the object was dropped from memory, and its next call starts from the stored state"
        )


@_error
class StaleObject(PersistenceError):
    """The storage refused this instance's change, because another owner came before it.

    The other owner wrote the object since ``revision``, or it claimed, set or cancelled the alarm
    that the object handled.
    """

    revision: int

    def _message(self) -> str:
        return (
            f"{self.key} was written by another owner since revision {self.revision}, or the alarm "
            "it handled was claimed or changed by another; this change was refused and the "
            "instance dropped: repeat the call on the new state"
        )


# --- the runtime ---------------------------------------------------------------------------------


class UsageError(DurableError, RuntimeError):
    """Base of the errors of a call in the wrong place or at the wrong time."""


@_error
class NoRuntime(UsageError):
    """No runtime is open here, or several are and the context names none."""

    open_here: int

    def _message(self) -> str:
        if self.open_here:
            return (
                f"{self.open_here} runtimes are open in this event loop and none is current here; "
                "call through a handle of one of them: runtime.get(Type, object_id)"
            )
        return (
            "no DurableRuntime is open in this event loop; "
            "enter `async with DurableRuntime(…)` first"
        )


@_error
class RuntimeClosed(UsageError):
    """The runtime is closing, closed, or was never entered."""

    problem: str

    def _message(self) -> str:
        return f"{self.problem}; calls are served inside `async with DurableRuntime(…)` only"


@_error
class WrongEventLoop(UsageError):
    """The runtime was used from another thread or event loop than its own."""

    problem: str

    def _message(self) -> str:
        return (
            f"{self.problem}; a DurableRuntime serves the event loop it was entered in: "
            "make the call with anyio.from_thread.run(), or open a runtime there"
        )


@_error
class TenantDropped(UsageError):
    """The tenant is being dropped; its objects can't be used until `drop_tenant` returns."""

    tenant: str

    def _message(self) -> str:
        return (
            f"tenant {self.tenant} is being dropped; wait until drop_tenant() is done, "
            "then its objects start from their defaults"
        )


@_error
class ForeignHandle(UsageError):
    """A pickled handle was loaded after its runtime had closed, or in another process."""

    key: ObjectKey

    def _message(self) -> str:
        return (
            f"the runtime of a pickled handle of {self.key} isn't open in this process; "
            "send the type and the id instead, and call runtime.get() where they arrive"
        )


@_error
class NotInTurn(UsageError):
    """``self.ctx`` was used outside a turn of its object."""

    problem: str

    def _message(self) -> str:
        return f"{self.problem}; use self.ctx inside a handler or after_load"


@_error
class WatchInTurn(UsageError):
    """A watch was opened in a turn, which would hold its object for as long as the watch lasts."""

    key: ObjectKey

    def _message(self) -> str:
        return (
            f"a watch of {self.key} was opened in a turn; call a handler of it to learn its state, "
            "or watch it in a task outside of turns"
        )

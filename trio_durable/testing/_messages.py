"""Assertions on messages, sent by one turn or waiting in a runtime; and their delivery by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Concatenate

import attrs

from .._api.durable_object import DurableObject, definition_of
from .._api.objects import Objects
from .._api.outgoing import sent_to
from .._clock import instant
from .._declarations.records import HandlerDefinition
from .._durations import positive_int
from .._json.errors import Unfit
from .._keys import ObjectKey
from .._messages.message import WaitingMessage, waiting_of
from ..storage import StoredMessage
from ._perform import Performed, Sent

SentTo = Callable[Concatenate[str, ...], Coroutine[Any, Any, object]]
"""A handler, named by its class: ``Stock.reserve``."""

_PAGE = 1_000
_LISTED = 10


@attrs.frozen
class Drained:
    """What `drain_messages` has done, and what it has left."""

    delivered: int
    """Messages that were handled."""
    failed: int
    """Attempts that failed."""
    dead: int
    """Messages that have become dead letters."""
    waiting: tuple[WaitingMessage, ...]
    """Messages that are left, since they aren't due: delayed ones, those that failed and are tried
    again later, those behind such a one of the same sender, and those to objects that this runtime
    doesn't serve. ``wake_at`` and ``last_error`` say why."""


async def drain_messages(runtime: Objects, /, *, max_deliveries: int = 1_000) -> Drained:
    """Return when all messages that are due are handled, with the messages that they send in turn.

    A runtime delivers messages by itself, so this waits and hurries nothing; time doesn't pass
    under a virtual clock. It waits for the messages of all tenants, and reports those of
    ``runtime``. Don't call it in a turn, which would wait for its own end.

    Args:
        runtime: The runtime of the objects.
        max_deliveries: The largest number of deliveries to wait for.

    Raises:
        AssertionError: Messages are due after ``max_deliveries``. Objects that always send each
            other the next one leave one.
        StorageUnavailable: The storage can't be read.
    """
    most = positive_int(max_deliveries, "max_deliveries")
    opened = runtime._open()
    await opened.loop.checkpoint()
    outbox = opened.outbox
    if outbox is None:
        return Drained(0, 0, 0, ())
    before = outbox.statistics()
    is_drained = await outbox.drain(most)
    after = outbox.statistics()
    waiting = [waiting_of(stored) for stored in await _waiting(runtime, None, None)]
    if not is_drained:
        raise AssertionError(
            f"expected no message to be due after {most} deliveries; "
            f"{_waiting_text(waiting, _now(runtime))}"
        )
    return Drained(
        after.delivered - before.delivered,
        after.failed - before.failed,
        after.buried - before.buried,
        tuple(waiting),
    )


def assert_sent(
    performed: Performed[Any], handler: SentTo, object_id: str, /, *args: object, **kwargs: object
) -> Sent:
    """Assert that a turn sent a message, and return it; the first one if several fit.

    Args:
        performed: The outcome of the turn, from `perform_handler` or `perform_alarm_handler`.
        handler: The receiver's handler, by its class: ``Stock.reserve``.
        object_id: The receiver's id.
        *args: Arguments of the message. Those that aren't given aren't compared.
        **kwargs: The same, by name.

    Raises:
        AssertionError: The turn sent no such message.
        InvalidMessage: ``handler`` is none.
        TypeError: The handler doesn't take these arguments.
    """
    cls, definition, given = _expected(handler, args, kwargs)
    type_name = definition_of(cls).name
    for sent in performed.sent:
        if (sent.type_name, sent.object_id, sent.handler) != (
            *(type_name, object_id),
            definition.name,
        ):
            continue
        if _fits(given, _by_name(definition, sent.args, sent.kwargs)):
            return sent
    raise AssertionError(
        f"expected the turn to send {_call_text(type_name, object_id, definition.name, given)}; "
        f"{_sent_text(performed.sent)}"
    )


def refute_sent(
    performed: Performed[Any], handler: SentTo, object_id: str | None = None, /
) -> None:
    """Assert that a turn sent no message to a handler, of one object or of all.

    Raises:
        AssertionError: The turn sent one.
        InvalidMessage: ``handler`` is none.
    """
    cls, definition, _ = _expected(handler, (), {})
    type_name = definition_of(cls).name
    found = [
        sent
        for sent in performed.sent
        if (sent.type_name, sent.handler) == (type_name, definition.name)
        and object_id in (None, sent.object_id)
    ]
    if found:
        whom = f"any {type_name}" if object_id is None else f"{type_name}({object_id!r})"
        raise AssertionError(
            f"expected the turn to send nothing to {definition.name} of {whom}; {_sent_text(found)}"
        )


async def assert_message_waiting(
    runtime: Objects, handler: SentTo, object_id: str, /, *args: object, **kwargs: object
) -> WaitingMessage:
    """Assert that a message to an object waits, and return it; the first one if several fit.

    It is read from the storage. A message that isn't delayed waits only until its turn, so this is
    for delayed ones, and for failed ones.

    Args:
        runtime: The runtime of the object.
        handler: The receiver's handler, by its class: ``Stock.reserve``.
        object_id: The receiver's id.
        *args: Arguments of the message. Those that aren't given aren't compared.
        **kwargs: The same, by name.

    Raises:
        AssertionError: No such message waits.
        InvalidMessage: ``handler`` is none.
        TypeError: The handler doesn't take these arguments.
        StorageUnavailable: The storage can't be read.
    """
    cls, definition, given = _expected(handler, args, kwargs)
    key, waiting = await _waiting_for(runtime, cls, object_id)
    for stored in waiting:
        if stored.handler == definition.name and _has_arguments(runtime, stored, definition, given):
            return waiting_of(stored)
    raise AssertionError(
        f"expected {_call_text(key.type_name, key.object_id, definition.name, given)} to wait; "
        f"{_waiting_text(list(map(waiting_of, waiting)), _now(runtime))}"
    )


async def refute_message_waiting(runtime: Objects, handler: SentTo, object_id: str, /) -> None:
    """Assert that no message to a handler of an object waits.

    Raises:
        AssertionError: One waits.
        InvalidMessage: ``handler`` is none.
        StorageUnavailable: The storage can't be read.
    """
    cls, definition, _ = _expected(handler, (), {})
    key, waiting = await _waiting_for(runtime, cls, object_id)
    found = [waiting_of(stored) for stored in waiting if stored.handler == definition.name]
    if found:
        raise AssertionError(
            f"expected no message to {definition.name} of {key} to wait; "
            f"{_waiting_text(found, _now(runtime))}"
        )


# --- arguments -----------------------------------------------------------------------------------


def _expected(
    handler: SentTo, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[type[DurableObject], HandlerDefinition, Mapping[str, object]]:
    """The class and the definition of a handler, and arguments by the names of its parameters."""
    cls, name = sent_to(ObjectKey("testing", "assert"), handler)
    definition = definition_of(cls).handlers[name]
    return cls, definition, definition.signature.bind_partial(*args, **kwargs).arguments


def _by_name(
    definition: HandlerDefinition, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Mapping[str, object]:
    """The arguments of a message by the names of the parameters, with defaults."""
    bound = definition.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _fits(given: Mapping[str, object], found: Mapping[str, object]) -> bool:
    return all(found[name] == value for name, value in given.items())


def _has_arguments(
    runtime: Objects,
    stored: StoredMessage,
    definition: HandlerDefinition,
    given: Mapping[str, object],
) -> bool:
    outbox = runtime._open().outbox
    if not given or outbox is None:
        return True
    try:
        return _fits(given, _by_name(definition, *outbox.arguments(stored)))
    except Unfit:
        return False  # another release has sent it


# --- what waits ----------------------------------------------------------------------------------


async def _waiting_for(
    runtime: Objects, cls: type[DurableObject], object_id: str
) -> tuple[ObjectKey, list[StoredMessage]]:
    key = runtime._key(cls, object_id)
    return key, await _waiting(runtime, key.type_name, key.object_id)


async def _waiting(
    runtime: Objects, type_name: str | None, object_id: str | None
) -> list[StoredMessage]:
    """All messages that wait, or those to one object."""
    opened, tenant, waiting = runtime._open(), runtime._tenant, list[StoredMessage]()
    while True:
        after = waiting[-1].key if waiting else None
        page = await opened.read(
            lambda reader, after=after: reader.list_messages(  # type: ignore[misc]
                type_name, object_id, after, _PAGE, tenant
            )
        )
        waiting += page
        if len(page) < _PAGE:
            return waiting


# --- texts ---------------------------------------------------------------------------------------


def _now(runtime: Objects) -> datetime:
    return instant(runtime._open().clock.now())


def _call_text(
    type_name: str, object_id: str, handler: str, arguments: Mapping[str, object]
) -> str:
    listed = ", ".join(f"{name}={value!r:.80}" for name, value in arguments.items())
    return f"{type_name}({object_id!r}).{handler}({listed})"


def _sent_text(sent: Sequence[Sent]) -> str:
    if not sent:
        return "it sent no message"
    listed = ", ".join(
        f"{each.type_name}({each.object_id!r}).{each.handler}({_arguments_text(each)})"
        for each in sent[:_LISTED]
    )
    return f"it sent {listed}{_more(sent)}"


def _arguments_text(sent: Sent) -> str:
    named = [f"{name}={value!r:.80}" for name, value in sent.kwargs.items()]
    return ", ".join([*(f"{value!r:.80}" for value in sent.args), *named])


def _waiting_text(waiting: Sequence[WaitingMessage], now: datetime) -> str:
    if not waiting:
        return "no message waits"
    listed = ", ".join(
        f"{each.receiver}.{each.handler}({_json_text(each.arguments)}){_time_text(each, now)}"
        for each in waiting[:_LISTED]
    )
    return f"messages that wait: {listed}{_more(waiting)}"


def _json_text(arguments: object) -> str:
    if not isinstance(arguments, dict):
        return ""
    return ", ".join(f"{name}={value!r:.80}" for name, value in arguments.items())


def _time_text(message: WaitingMessage, now: datetime) -> str:
    parts = []
    if message.wake_at is not None:
        parts.append(f"in {(message.wake_at - now).total_seconds():.6g} s")
    if message.last_error is not None:
        parts.append(f"after {message.failures} failures, the last of them {message.last_error}")
    return f" ({', '.join(parts)})" if parts else ""


def _more(listed: Sequence[object]) -> str:
    return f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""

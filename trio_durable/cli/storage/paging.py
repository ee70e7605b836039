"""Iteration over rows, page by page, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from ..._browsing import iter_alarms, just_before
from ..._keys import AlarmKey, ObjectKey
from ...storage import (
    AlarmRow,
    DeadMessage,
    MessageKey,
    ObjectRow,
    OnceKey,
    OnceReply,
    Reader,
    StoredMessage,
)

_PAGE_ROWS = 1000
_PAGE_BYTES = 4 * 1024 * 1024
_MESSAGE_PAGE = 64
"""Each message has up to 64 KiB of arguments, and a page of them has to fit into memory."""


def iter_tenants(reader: Reader) -> Iterator[str]:
    """The names of all tenants, in order. Objects without a tenant have none."""
    after = None
    while page := reader.list_tenants(after, _PAGE_ROWS):
        yield from page
        after = page[-1]


def select_tenants(reader: Reader, tenant: str | None) -> list[str]:
    """The named tenant, or all: first "", for objects without a tenant."""
    return ["", *iter_tenants(reader)] if tenant is None else [tenant]


def iter_objects(
    reader: Reader, type_name: str | None, tenant: str = "", after: ObjectKey | None = None
) -> Iterator[ObjectRow]:
    """Objects in the order of `Reader.browse_objects`."""
    limit = 16
    while page := reader.browse_objects(type_name, after, limit, tenant):
        yield from page
        after = page[-1].key
        # States may be large, and a page of them has to fit into memory.
        size = sum(len(row.state) for row in page) // len(page)
        limit = max(1, min(_PAGE_ROWS, 4 * limit, _PAGE_BYTES // (size + 1)))


def recurring_pages(
    reader: Reader, type_name: str, name: str, tenant: str
) -> Iterator[list[AlarmRow]]:
    """The recurring alarms of one type and name, as far as these aren't due or moved."""
    after: AlarmKey | None = None
    earliest = -(2**63)
    while page := reader.recurring_alarms(type_name, name, earliest, after, _PAGE_ROWS, tenant):
        yield [AlarmRow(alarm, alarm.due_at, "pending") for alarm in page]
        after = page[-1].key


def iter_messages(
    reader: Reader,
    type_name: str | None = None,
    object_id: str | None = None,
    tenant: str = "",
    limit: int = _MESSAGE_PAGE,
) -> Iterator[StoredMessage]:
    """Waiting messages in the order of `Reader.list_messages`."""
    after: MessageKey | None = None
    while page := reader.list_messages(type_name, object_id, after, limit, tenant):
        yield from page
        after = page[-1].key


def iter_dead_messages(
    reader: Reader, type_name: str | None = None, tenant: str = ""
) -> Iterator[DeadMessage]:
    """Dead letters among messages, by number."""
    after = 0
    while page := reader.list_dead_messages(type_name, after, _MESSAGE_PAGE, tenant):
        yield from page
        after = page[-1].message.key.seq


def iter_once(reader: Reader, tenant: str = "") -> Iterator[OnceReply]:
    """Once-keys by type, id and key, expired ones among them."""
    after: OnceKey | None = None
    while page := reader.list_once(after, _MESSAGE_PAGE, tenant):
        yield from page
        after = page[-1].key


def has_mail(reader: Reader, tenant: str = "") -> bool:
    """True if a tenant has messages, dead letters among them, or once-keys."""
    return bool(
        reader.list_messages(None, None, None, 1, tenant)
        or reader.list_dead_messages(None, 0, 1, tenant)
        or reader.list_once(None, 1, tenant)
    )


def present_mail(reader: Reader, tenants: Iterable[str]) -> tuple[set[int], set[OnceKey]]:
    """The tokens of all messages, dead letters among them, and all once-keys of some tenants."""
    tokens, keys = set[int](), set[OnceKey]()
    for tenant in tenants:
        tokens |= {message.key.token for message in iter_messages(reader, tenant=tenant)}
        tokens |= {dead.message.key.token for dead in iter_dead_messages(reader, None, tenant)}
        keys |= {once.key for once in iter_once(reader, tenant)}
    return tokens, keys


def existing_alarms(reader: Reader, keys: Sequence[AlarmKey], now: int) -> set[AlarmKey]:
    """The stored alarms and dead letters among ``keys``.

    Args:
        reader: The reader of the storage.
        keys: Keys in the order of objects, then names.
        now: The wall time.
    """
    present: set[AlarmKey] = set()
    for owner, keys_of_owner in groupby(keys, key=lambda key: key.object_key):
        wanted = list(keys_of_owner)
        last = wanted[-1].name.encode()
        # An object may have many alarms; only the range from the first to the last key is read.
        rows = iter_alarms(
            reader,
            now,
            owner.type_name,
            owner.tenant,
            after=owner.alarm(just_before(wanted[0].name)),
            limit=len(wanted),
        )
        for row in rows:
            present.add(row.alarm.key)
            if row.alarm.key.object_key != owner or row.alarm.key.name.encode() >= last:
                break  # before the next page is read
    return present.intersection(keys)


def is_empty(reader: Reader) -> bool:
    """True if the storage has no object, alarm, message, once-key or tenant."""
    return not (
        reader.list_tenants(None, 1)
        or reader.browse_objects(None, None, 1)
        or reader.browse_alarms(None, 0, None, None, 1)
        or has_mail(reader)
    )

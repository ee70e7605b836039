"""Browsing: single rows, types and alarms of a storage, for the command and the inspector."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from ._keys import AlarmKey, ObjectKey
from .storage import AlarmRow, AlarmStatus, ObjectRow, Reader

_PAGE_ROWS = 1000
_LAST_NAME = "\U0010ffff" * 128
"""The last name in the order of UTF-8 bytes: 512 bytes of the last character."""


def just_before(name: str) -> str:
    """A bound below ``name`` and above all names before it, in the order of UTF-8 bytes."""
    last = ord(name[-1]) - 1
    if last == 0:  # no name has this character
        return name[:-1]
    # Surrogates are no characters.
    return name[:-1] + chr(0xD7FF if last == 0xDFFF else last) + _LAST_NAME


def has_tenant(reader: Reader, name: str) -> bool:
    """True if the storage has a tenant with this name."""
    return reader.list_tenants(just_before(name), 1) == [name]


def find_object(reader: Reader, key: ObjectKey) -> ObjectRow | None:
    """The row of an object, which has more columns than `Reader.load` returns."""
    before = ObjectKey(key.type_name, just_before(key.object_id), key.tenant)
    page = reader.browse_objects(key.type_name, before, 1, key.tenant)
    return page[0] if page and page[0].key == key else None


def find_alarm(reader: Reader, key: AlarmKey, now: int) -> AlarmRow | None:
    """The row of an alarm or dead letter."""
    before = key._replace(name=just_before(key.name))
    page = reader.browse_alarms(None, now, key.type_name, before, 1, key.tenant)
    return page[0] if page and page[0].alarm.key == key else None


def iter_types(reader: Reader, tenant: str = "") -> Iterator[str]:
    """The types with objects of a tenant, in order. One object of each is read."""
    after = None
    while page := reader.browse_objects(None, after, 1, tenant):
        type_name = page[0].key.type_name
        yield type_name
        after = ObjectKey(type_name, _LAST_NAME)


def iter_alarm_types(reader: Reader, now: int, tenant: str = "") -> Iterator[str]:
    """The types with alarms or dead letters of a tenant, in order. One alarm of each is read."""
    after = None
    while page := reader.browse_alarms(None, now, None, after, 1, tenant):
        type_name = page[0].alarm.key.type_name
        yield type_name
        after = AlarmKey(type_name, _LAST_NAME, _LAST_NAME, tenant)


def iter_alarms(
    reader: Reader,
    now: int,
    type_name: str | None = None,
    tenant: str = "",
    *,
    status: AlarmStatus | None = None,
    after: AlarmKey | None = None,
    limit: int = 100,
) -> Iterator[AlarmRow]:
    """Alarms in the order of `Reader.browse_alarms`. The first page has ``limit`` rows."""
    while page := reader.browse_alarms(status, now, type_name, after, limit, tenant):
        yield from page
        after = page[-1].alarm.key
        limit = min(_PAGE_ROWS, 4 * limit)


def iter_alarms_of(
    reader: Reader, key: ObjectKey, now: int, *, status: AlarmStatus | None = None
) -> Iterator[AlarmRow]:
    """The alarms and dead letters of one object, in the order of their names."""
    # An empty name is before all names.
    before = AlarmKey(key.type_name, key.object_id, "", key.tenant)
    rows = iter_alarms(reader, now, key.type_name, key.tenant, status=status, after=before)
    return takewhile(lambda row: row.alarm.key.object_key == key, rows)

"""All rows of a kind, page by page, so that it doesn't matter how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from ..._keys import AlarmKey, ObjectKey
from ...storage import AlarmRow, AlarmStatus, ObjectRow, Reader

_PAGE_ROWS = 1000
_PAGE_BYTES = 4 * 1024 * 1024

_LAST_NAME = "\U0010ffff" * 128
"""What no name is behind: these are its 512 bytes."""


def just_before(name: str) -> str:
    """What only ``name`` and those behind it come behind, in the order of their UTF-8 bytes."""
    last = ord(name[-1]) - 1
    if last == 0:  # which no name has
        return name[:-1]
    # What would be surrogates is no character.
    return name[:-1] + chr(0xD7FF if last == 0xDFFF else last) + _LAST_NAME


def has_tenant(reader: Reader, name: str) -> bool:
    """Whether there is such a tenant."""
    return reader.list_tenants(just_before(name), 1) == [name]


def find_object(reader: Reader, key: ObjectKey) -> ObjectRow | None:
    """An object with all that there is to know of it, which `Reader.load` doesn't tell."""
    before = ObjectKey(key.type_name, just_before(key.object_id), key.tenant)
    page = reader.browse_objects(key.type_name, before, 1, key.tenant)
    return page[0] if page and page[0].key == key else None


def find_alarm(reader: Reader, key: AlarmKey, now: int) -> AlarmRow | None:
    """An alarm, or a dead letter."""
    before = key._replace(name=just_before(key.name))
    page = reader.browse_alarms(None, now, key.type_name, before, 1, key.tenant)
    return page[0] if page and page[0].alarm.key == key else None


def iter_tenants(reader: Reader) -> Iterator[str]:
    """The names of all tenants, in order, without the nameless one."""
    after = None
    while page := reader.list_tenants(after, _PAGE_ROWS):
        yield from page
        after = page[-1]


def select_tenants(reader: Reader, tenant: str | None) -> list[str]:
    """The one that was named, or else all: the nameless one first."""
    return ["", *iter_tenants(reader)] if tenant is None else [tenant]


def iter_types(reader: Reader, tenant: str = "") -> Iterator[str]:
    """The types that a tenant has objects of, in order; looks at one object of each."""
    after = None
    while page := reader.browse_objects(None, after, 1, tenant):
        type_name = page[0].key.type_name
        yield type_name
        after = ObjectKey(type_name, _LAST_NAME)


def iter_objects(
    reader: Reader, type_name: str | None, tenant: str = "", after: ObjectKey | None = None
) -> Iterator[ObjectRow]:
    """Objects as `Reader.browse_objects` has them."""
    limit = 16
    while page := reader.browse_objects(type_name, after, limit, tenant):
        yield from page
        after = page[-1].key
        # States may be large; a page of them has to fit into memory.
        size = sum(len(row.state) for row in page) // len(page)
        limit = max(1, min(_PAGE_ROWS, 4 * limit, _PAGE_BYTES // (size + 1)))


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
    """Alarms as `Reader.browse_alarms` has them, at first ``limit`` at a time."""
    while page := reader.browse_alarms(status, now, type_name, after, limit, tenant):
        yield from page
        after = page[-1].alarm.key
        limit = min(_PAGE_ROWS, 4 * limit)


def iter_alarms_of(
    reader: Reader, key: ObjectKey, now: int, *, status: AlarmStatus | None = None
) -> Iterator[AlarmRow]:
    """The alarms of one object, dead letters too, by name."""
    # No name is empty.
    before = AlarmKey(key.type_name, key.object_id, "", key.tenant)
    rows = iter_alarms(reader, now, key.type_name, key.tenant, status=status, after=before)
    return takewhile(lambda row: row.alarm.key.object_key == key, rows)


def existing_alarms(reader: Reader, keys: Sequence[AlarmKey], now: int) -> set[AlarmKey]:
    """Those of ``keys`` that are there, dead letters too.

    Args:
        reader: Of the storage.
        keys: In order of object and then name.
        now: The wall time.
    """
    present: set[AlarmKey] = set()
    for owner, its_keys in groupby(keys, key=lambda key: key.object_key):
        wanted = list(its_keys)
        last = wanted[-1].name.encode()
        # Only what is between the first and the last: an object may have very many.
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
                break  # without a look at the next page
    return present.intersection(keys)


def is_empty(reader: Reader) -> bool:
    """Whether nothing is stored, of no tenant."""
    return not (
        reader.list_tenants(None, 1)
        or reader.browse_objects(None, None, 1)
        or reader.browse_alarms(None, 0, None, None, 1)
    )

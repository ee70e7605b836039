"""Identities of objects and alarms, and the rules for their names."""

from __future__ import annotations

import re
from typing import NamedTuple

import attrs

MAX_ID_BYTES = 512
MAX_TENANT_LENGTH = 48
"""PostgreSQL has a schema per tenant and cuts its name at 63 bytes, a prefix included."""

# Lowercase only, because names in SQL are case-insensitive.
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]*")


Owner = tuple[str, str, str]
"""Type name, id and tenant of an object: a plain tuple, which is fast to compare and hash."""


@attrs.frozen(cache_hash=True)  # messages are kept by their receivers
class ObjectKey:
    """The identity of a durable object: its stored type name, its id and its tenant."""

    type_name: str
    object_id: str
    tenant: str = ""
    """The name of the tenant; "" without one."""

    def __str__(self) -> str:
        name = f"{self.type_name}({self.object_id!r})"
        return f"{name} of tenant {self.tenant}" if self.tenant else name

    def alarm(self, name: str) -> AlarmKey:
        """The identity of the object's alarm ``name``."""
        return AlarmKey(self.type_name, self.object_id, name, self.tenant)

    @property
    def owner(self) -> Owner:
        """The owner of the object's alarms: this key as a tuple."""
        return self.type_name, self.object_id, self.tenant

    @property
    def address(self) -> str:
        """See `address_of`."""
        return address_of(self.object_id, self.tenant)


class AlarmKey(NamedTuple):
    """The identity of an alarm: its object and its name.

    A plain tuple, because the timing wheel hashes several of them for each alarm.
    """

    type_name: str
    object_id: str
    name: str
    tenant: str = ""

    @property
    def owner(self) -> Owner:
        """The object that the alarm belongs to, as a tuple."""
        return self[0], self[1], self[3]

    @property
    def address(self) -> str:
        """See `address_of`."""
        return address_of(self.object_id, self.tenant)

    @property
    def object_key(self) -> ObjectKey:
        """The object that the alarm belongs to."""
        return ObjectKey(self.type_name, self.object_id, self.tenant)

    def __str__(self) -> str:
        return f"{self.name} of {self.object_key}"


def address_of(object_id: str, tenant: str) -> str:
    """The address of an object: identifies it among the objects of its type in all tenants.

    Addresses are distinct, because neither ids nor names of tenants contain NUL. A plain str,
    because each call looks one up.
    """
    return f"{tenant}\0{object_id}" if tenant else object_id


def at_address(type_name: str, address: str) -> ObjectKey:
    """The key of the object at ``address``, the inverse of `address_of`."""
    tenant, separator, object_id = address.partition("\0")
    return ObjectKey(type_name, object_id, tenant) if separator else ObjectKey(type_name, address)


def id_at(address: str) -> str:
    """The id of the object at ``address``."""
    return address.partition("\0")[2] if "\0" in address else address


def tenant_problem(tenant: object) -> str | None:
    """The reason why ``tenant`` can't be the name of a tenant, or None if it can."""
    if not isinstance(tenant, str):
        return f"it is of type {type(tenant).__name__}"
    if not 1 <= len(tenant) <= MAX_TENANT_LENGTH:
        return f"it has {len(tenant)} characters"
    if _TENANT.fullmatch(tenant) is None:
        return "it has forbidden characters"
    return None


def id_problem(object_id: object) -> str | None:
    """The reason why ``object_id`` can't be an id, or None if it can."""
    if not isinstance(object_id, str):
        return f"it is of type {type(object_id).__name__}"
    if not object_id:
        return "it is empty"
    if "\0" in object_id:
        return "it contains NUL"
    if len(object_id) * 4 > MAX_ID_BYTES:
        try:
            size = len(object_id.encode())
        except UnicodeEncodeError:
            return "it contains a lone surrogate"
        if size > MAX_ID_BYTES:
            return f"it takes {size} bytes"
    elif not object_id.isascii() and not _encodable(object_id):
        return "it contains a lone surrogate"
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

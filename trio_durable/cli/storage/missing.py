"""Errors for a type or an object that isn't stored, with the name that was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice

from ..._browsing import iter_types
from ..._keys import ObjectKey
from ...storage import Reader, Storage
from ..command_line import command_line, quoted
from ..errors import CommandError

_NAMED = 5
"""The most types in a message."""
_COMPARED = 1000
"""The most types that are compared with a misspelt one."""


def check_type_stored(reader: Reader, storage: Storage, type_name: str, tenant: str | None) -> None:
    """Check that a tenant has anything of a type: objects, alarms, messages or dead letters.

    Raises:
        CommandError: It has nothing.
    """
    of = tenant or ""
    if not (
        reader.browse_objects(type_name, None, 1, of)
        or reader.browse_alarms(None, 0, type_name, None, 1, of)
        or reader.list_messages(type_name, None, None, 1, of)
        or reader.list_dead_messages(type_name, 0, 1, of)
    ):
        raise _no_such_type(reader, storage, type_name, of)


def object_not_found(reader: Reader, storage: Storage, key: ObjectKey) -> CommandError:
    """The error for an object that isn't stored."""
    if not reader.browse_objects(key.type_name, None, 1, key.tenant):
        return _no_such_type(reader, storage, key.type_name, key.tenant)
    listing = command_line("ls", storage=storage.location, tenant=key.tenant, names=[key.type_name])
    return CommandError(f"{key} isn't stored; `{listing}` lists the stored objects")


def _no_such_type(reader: Reader, storage: Storage, name: str, tenant: str) -> CommandError:
    place = f"{storage.location}, tenant {tenant}" if tenant else storage.location
    types = list(islice(iter_types(reader, tenant), _COMPARED))
    close = get_close_matches(name, types, 1)
    if close:
        return CommandError(f"no type {name} in {place}. Did you mean {quoted(close[0])}?")
    if not types:
        return CommandError(f"no type {name} in {place}: no object is stored there")
    more = ", …" if len(types) > _NAMED else ""
    return CommandError(f"no type {name} in {place}; it has {', '.join(types[:_NAMED])}{more}")

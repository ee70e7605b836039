"""Stored states of objects, and assertions on them."""

from __future__ import annotations

from typing import TypeVar, cast, overload

import attrs

from .._api.durable_object import DurableObject
from .._api.objects import Objects

T = TypeVar("T", bound=DurableObject)


@overload
async def get_persisted_state(
    runtime: Objects, object_type: type[T], object_id: str, /
) -> T | None: ...
@overload
async def get_persisted_state(
    runtime: Objects, object_type: str, object_id: str, /
) -> DurableObject | None: ...
async def get_persisted_state(
    runtime: Objects, object_type: type[T] | str, object_id: str, /
) -> T | DurableObject | None:
    """The stored state of an object as a detached instance, or None if it isn't stored.

    This reads the storage. The object isn't called, and needn't be in memory.

    Raises:
        StateDecodeError: The stored state doesn't fit the class.
        StorageUnavailable: The storage can't be read.
    """
    calls, address = runtime._locate(object_type, object_id)
    key = calls.object_type.key(address)
    [row] = await runtime._open().read(lambda reader: reader.load([key]))
    return None if row is None else cast("T", calls.object_type.codec.decode(key, row.state))


async def assert_persisted(
    runtime: Objects,
    object_type: type[DurableObject] | str,
    object_id: str,
    /,
    **fields: object,
) -> None:
    """Assert that an object is stored, with these values of its fields.

    Raises:
        AssertionError: The object isn't stored, or a field has another value.
        TypeError: The class has no such field.
    """
    calls, address = runtime._locate(object_type, object_id)
    key = calls.object_type.key(address)
    cls: type[DurableObject] = calls.object_type.cls
    known = [field.name for field in attrs.fields(cls)]
    unknown = [name for name in fields if name not in known]
    if unknown:
        has = ", ".join(known) or "none"
        raise TypeError(f"{cls.__qualname__} has no field {', '.join(unknown)} (it has: {has})")
    expected = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    stored: DurableObject | None = await get_persisted_state(runtime, cls, object_id)
    if stored is None:
        wanted = f" with {expected}" if expected else ""
        raise AssertionError(f"expected {key} to be stored{wanted}, but it isn't stored")
    wrong = [name for name, value in fields.items() if getattr(stored, name) != value]
    if wrong:
        found = ", ".join(f"{name}={getattr(stored, name)!r}" for name in wrong)
        raise AssertionError(f"expected {key} to be stored with {expected}, but it has {found}")

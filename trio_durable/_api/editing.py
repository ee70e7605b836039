"""Edits of states as JSON, by users who have no classes: the inspector and commands."""

from __future__ import annotations

from typing import Any, cast

import orjson

from .._errors import StateDecodeError
from .._json.exact import parse
from .._json.state import DECLARATION_MEMBER
from .._json.upgrades import SCHEMA_MEMBER
from .._keys import ObjectKey
from .durable_object import DurableObject, definition_of
from .objects import Objects


async def edit_state(
    objects: Objects, key: ObjectKey, state: str, expected: tuple[int, str | None]
) -> None:
    """Replace a state by one that is given as JSON, if it is still the expected one.

    Args:
        objects: The runtime or the tenant.
        key: The object. Its class must be served.
        state: The new state, with the declaration and the schema of the stored one.
        expected: See `Objects.put_state`.

    Raises:
        StateConflict: Another state is stored.
        StateDecodeError: It doesn't fit the class, or has a member that isn't a field.
        Exception: As `Objects.put_state` does.
    """
    calls, _ = objects._locate(key.type_name, key.object_id)
    object_type = calls.object_type
    try:
        data = parse(state)
    except ValueError as error:
        raise StateDecodeError(key, "", "", str(error)) from None
    instance = cast("DurableObject", object_type.codec.decode(key, orjson.dumps(data)))
    definition = definition_of(object_type.cls)
    if data.get(SCHEMA_MEMBER, 1) == definition.schema:
        # A misspelt field would be lost without a word.
        known = {*definition.fields, SCHEMA_MEMBER, DECLARATION_MEMBER}
        for name in data:
            if name not in known:
                fields = ", ".join(definition.fields)
                raise StateDecodeError(key, "", name, f"it is no field (fields: {fields})")
    changed: Any = instance
    await objects.put_state(object_type.cls, key.object_id, changed, expected=expected)

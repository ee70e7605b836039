"""Upgrades of stored state, applied one after the other when a state of an older schema is decoded.

The member ``"$schema"`` says at which schema the JSON was written; without it, schema 1. So
storages know nothing of schemas, and no field can have that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import orjson

from .._errors import StateDecodeError
from .._keys import ObjectKey
from .._text import error_summary, short_repr
from .errors import as_unfit
from .plain import write_json

SCHEMA_MEMBER = "$schema"


@attrs.frozen
class UpgradeDefinition:
    """An upgrade from one schema to the next."""

    name: str
    function: Callable[[dict[str, Any]], dict[str, Any]]
    from_schema: int


def upgraded(
    key: ObjectKey,
    data: dict[str, Any],
    stored: int,
    upgrades: Mapping[int, UpgradeDefinition],
) -> dict[str, Any]:
    """``data`` of the schema ``stored``, after all ``upgrades`` from there.

    Raises:
        StateDecodeError: An upgrade failed, or didn't return JSON data.
    """
    for number, step in upgrades.items():
        if number >= stored:
            data = _step(key, data, step)
    return data


def _step(key: ObjectKey, data: dict[str, Any], step: UpgradeDefinition) -> dict[str, Any]:
    name = f"the upgrade {step.name} from schema {step.from_schema}"
    try:
        made: object = step.function(data)
    except Exception as error:
        raise StateDecodeError(key, "", "$", f"{name} raised {error_summary(error)}") from error
    if type(made) is not dict:
        raise StateDecodeError(key, "", "$", f"{name} returned {short_repr(made)}, not a dict")
    try:
        # A copy, so that no two objects share data that an upgrade returned for both.
        copy: dict[str, Any] = orjson.loads(orjson.dumps(write_json(made, [])))
    except Exception as error:
        unfit = as_unfit(error)
        raise StateDecodeError(
            key,
            "",
            f"${unfit.path:.100}",
            f"{name} returned something that isn't JSON: {unfit.problem}",
        ) from error
    return copy

"""State ↔ JSON bytes, exactly.

cattrs generates the functions that take classes apart and put them together, orjson writes and
reads the bytes; the hooks for single types are ours, and strict. Left to themselves, both
libraries are lenient in ways that lose data silently: orjson writes NaN and infinity as null and
tuples as lists, cattrs turns ``"3"`` into 3 where an int is declared. Here a value is encoded
only if it is of the declared type and comes back from JSON equal to what it was; anything else is
refused and the refusal names the field. The alternative, to decode every write again and compare,
costs three times as much and finds the same.

What comes back as it was: bool, int (64 bits), finite float (an int where a float is declared
stays an int), str, None, bytes (base64), datetime (naive, or with a fixed offset in whole
seconds), date, time, timedelta, Decimal, UUID, enums, list, tuple, set, frozenset, dict (with
keys of str, int, Enum, UUID, date, datetime, Decimal), Literal, NewType, Annotated, TypedDict,
NamedTuple, nested attrs classes and dataclasses, unions of these, and Any or object for plain
JSON.

In a union with more than one member besides None, members that aren't plain JSON scalars are
written as ``{"$type": name, "value": …}``, so that reading never has to guess.

State of a schema other than 1 says so in a member ``"$schema"`` (see `_upgrade`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs
import orjson

from .._errors import (
    DefinitionError,
    StateDecodeError,
    StateEncodeError,
    StateTooLarge,
    StateTooNew,
)
from .._keys import ObjectKey
from .._text import error_summary, short_repr
from .classes import check_reads_back, field_functions, is_constrained
from .errors import UnsupportedType, as_unfit
from .hooks import hooks_for, reader_for, writer_for
from .upgrades import SCHEMA_MEMBER, UpgradeDefinition, upgraded

DEFAULT_MAX_STATE_SIZE = 16 * 1024 * 1024


class StateCodec:
    """Encodes and decodes the state of one class.

    Args:
        cls: The class.
        max_size: How many bytes of JSON may be stored.
        schema: Which form of state the class has.
        upgrades: What brings older forms to it, by the schema that they take.

    Raises:
        DefinitionError: A field's type has no exact JSON form, or a default doesn't survive it.
    """

    def __init__(
        self,
        cls: type[Any],
        max_size: int = DEFAULT_MAX_STATE_SIZE,
        schema: int = 1,
        upgrades: Mapping[int, UpgradeDefinition] = MappingProxyType({}),
    ) -> None:
        self._cls = cls
        self._max_size = max_size
        self._schema = schema
        self._upgrades = upgrades
        self._fields = attrs.fields(cls)
        self._names = frozenset(field.name for field in self._fields)
        self._constrained = is_constrained(cls)
        for field in self._fields:
            try:
                hooks_for(field.type)
            except (UnsupportedType, NameError) as error:
                raise DefinitionError(cls.__qualname__, field.name, str(error)) from error
        self._write, self._read = field_functions(
            cls, {field.name: field.type for field in self._fields}, hooks_for
        )
        self._check_default()

    def _check_default(self) -> None:
        try:
            default = self._cls()
        except Exception as error:
            raise DefinitionError(
                self._cls.__qualname__, "", f"its default state can't be made: {error}"
            ) from error
        key = ObjectKey(self._cls.__qualname__, "default")
        try:
            encoded = self.encode(key, default)
            self.check_size(key, encoded)
            decoded = self.decode(key, encoded)
        except (StateEncodeError, StateDecodeError) as error:
            raise DefinitionError(
                self._cls.__qualname__,
                error.field,
                f"the default can't be stored: {error.problem or error}",
            ) from error
        if self.encode(key, decoded) != encoded:
            raise DefinitionError(
                self._cls.__qualname__,
                "",
                f"the default {short_repr(default)} is not read as written",
            )

    def encode(self, key: ObjectKey, instance: Any) -> bytes:
        """The state of ``instance`` as JSON.

        Equal states give equal bytes, but for the order in which a dict was filled.

        Raises:
            StateEncodeError: A value that JSON can't carry exactly, or an attribute that isn't a
                declared field.
        """
        attributes = instance.__dict__
        if len(attributes) > len(self._fields) + ("ctx" in attributes):
            self._refuse_undeclared(key, instance)
        try:
            data = self._write(instance)
            if self._constrained:
                check_reads_back(data, self._write, lambda data: self._read(data, self._cls))
            if self._schema != 1:
                data[SCHEMA_MEMBER] = self._schema
            return orjson.dumps(data)
        except Exception as error:
            raise self._encode_error(key, instance, error) from None

    def check_size(self, key: ObjectKey, state: bytes) -> None:
        """Refuse to store more than the limit; what is stored already can be read all the same.

        Raises:
            StateTooLarge: It is more.
        """
        if len(state) > self._max_size:
            raise StateTooLarge(key, "", "", len(state), self._max_size)

    def decode(self, key: ObjectKey, state: bytes) -> Any:
        """A new instance with the state that `encode` gave, now or at an earlier schema.

        Fields missing in ``state`` get their defaults, unknown ones are dropped.

        Raises:
            StateTooNew: It was written at a later schema.
            StateDecodeError: It isn't JSON, an upgrade failed, or a value doesn't fit its field.
        """
        try:
            data = orjson.loads(state)
        except orjson.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            raise StateDecodeError(key, "", place, f"not JSON ({error.msg})") from error
        if type(data) is not dict:
            raise StateDecodeError(key, "", "$", f"{short_repr(data)} is not a JSON object")
        schema = data.pop(SCHEMA_MEMBER, 1)
        if type(schema) is not int or schema != self._schema:
            data = self._at_this_schema(key, data, schema)
        try:
            return self._read(data, self._cls)
        except Exception as error:
            failure = self._decode_error(key, data, error)
            if schema != self._schema:
                failure.problem += f" (upgraded from schema {schema})"
            raise failure from error

    def _at_this_schema(
        self, key: ObjectKey, data: dict[str, Any], schema: object
    ) -> dict[str, Any]:
        if type(schema) is not int or schema < 1:
            raise StateDecodeError(
                key, "", f"$.{SCHEMA_MEMBER}", f"{short_repr(schema)} is not the number of a schema"
            )
        if schema > self._schema:
            raise StateTooNew(key, "", "", "", schema, self._schema)
        return upgraded(key, data, schema, self._upgrades)

    def _refuse_undeclared(self, key: ObjectKey, instance: Any) -> None:
        extra = sorted(instance.__dict__.keys() - self._names - {"ctx"})
        if extra:
            raise StateEncodeError(
                key,
                extra[0],
                f"it is not declared on {self._cls.__qualname__}, so it would be lost; declare "
                f"`{extra[0]}: {type(instance.__dict__[extra[0]]).__name__} = …` in the class body",
            )

    def _encode_error(self, key: ObjectKey, instance: Any, error: Exception) -> StateEncodeError:
        for field in self._fields:
            try:
                orjson.dumps(writer_for(field.type)(getattr(instance, field.name)))
            except Exception as cause:
                unfit = as_unfit(cause)
                return StateEncodeError(key, _short(field.name + unfit.path), unfit.problem)
        # Each value is of its type, so a validator refused one, or a converter changed it.
        unfit = as_unfit(error)
        return StateEncodeError(key, _short(unfit.path.lstrip(".")) or "?", unfit.problem)

    def _decode_error(
        self, key: ObjectKey, data: dict[str, Any], error: Exception
    ) -> StateDecodeError:
        for field in self._fields:
            if field.name in data:
                try:
                    reader_for(field.type)(data[field.name])
                except Exception as cause:
                    unfit = as_unfit(cause)
                    place = _short(f"$.{field.name}{unfit.path}")
                    return StateDecodeError(key, field.name, place, unfit.problem)
        # Each value is of its type, so a validator refused one.
        return StateDecodeError(key, "", "$", error_summary(error))


def compact(encoded: bytes) -> bytes:
    """``encoded`` for keeping.

    A copy, because orjson's result keeps the whole buffer that it was made in, some kilobytes, and
    a state stays in memory for as long as its object. Most turns only compare theirs.
    """
    return bytes(memoryview(encoded))


def _short(path: str) -> str:
    return path if len(path) <= 100 else path[:97] + "…"

"""The state codec: state to JSON bytes and back, exactly.

cattrs generates the functions that read a class's fields and build an instance; orjson writes and
reads the bytes. The hooks for single types are ours, and strict, because both libraries are lenient
in ways that lose data silently: orjson writes NaN and infinity as null and tuples as lists, and
cattrs turns ``"3"`` into 3 where an int is declared. The codec encodes a value only if it is of the
declared type and equal when read back. Otherwise it raises an error that names the field. Decoding
each write to compare it would find the same errors at three times the cost.

The section "What state may hold" of docs/guide.md lists the types with exact JSON.

In a union with more than one member besides None, values of members that aren't plain JSON scalars
are written as ``{"$type": name, "value": …}``, so that reading never has to guess.

State of a schema other than 1 has its schema in a member ``"$schema"``, see `upgrades`.
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
        max_size: The limit of a state's JSON, in bytes.
        schema: The schema of the class's state.
        upgrades: The upgrades to this schema, by the schema of the data they take.

    Raises:
        DefinitionError: A field's type has no exact JSON, or the default state can't be stored.
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
                self._cls.__qualname__, "", f"its default state can't be created: {error}"
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
                f"the default {short_repr(default)} is not read back as written; choose another",
            )

    def encode(self, key: ObjectKey, instance: Any) -> bytes:
        """The state of ``instance`` as JSON.

        The same state gives the same bytes. Only the order in which dicts were filled makes a
        difference.

        Raises:
            StateEncodeError: JSON can't represent a value exactly, or an attribute isn't a declared
                field.
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
        except Exception as error:  # noqa: BLE001  # hooks and validators may raise anything
            raise self._encode_error(key, instance, error) from None

    def check_size(self, key: ObjectKey, state: bytes) -> None:
        """Check the size of a state that is to be stored. Stored states of any size can be read.

        Raises:
            StateTooLarge: It exceeds the limit.
        """
        if len(state) > self._max_size:
            raise StateTooLarge(key, "", "", len(state), self._max_size)

    def decode(self, key: ObjectKey, state: bytes) -> Any:
        """A new instance with a state that `encode` returned, at this schema or an earlier one.

        Fields missing in ``state`` get their defaults; unknown members are dropped.

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
            except Exception as cause:  # noqa: BLE001  # hooks may raise anything
                unfit = as_unfit(cause)
                return StateEncodeError(key, _short(field.name + unfit.path), unfit.problem)
        # Every value fits its type, so a validator rejected one, or a converter changed it.
        unfit = as_unfit(error)
        return StateEncodeError(key, _short(unfit.path.lstrip(".")) or "?", unfit.problem)

    def _decode_error(
        self, key: ObjectKey, data: dict[str, Any], error: Exception
    ) -> StateDecodeError:
        for field in self._fields:
            if field.name in data:
                try:
                    reader_for(field.type)(data[field.name])
                except Exception as cause:  # noqa: BLE001  # hooks may raise anything
                    unfit = as_unfit(cause)
                    place = _short(f"$.{field.name}{unfit.path}")
                    return StateDecodeError(key, field.name, place, unfit.problem)
        # Every value fits its type, so a validator or a converter rejected one.
        return StateDecodeError(key, "", "$", error_summary(error))


def compact(encoded: bytes) -> bytes:
    """A copy of ``encoded`` that takes no more memory than its bytes.

    The bytes that orjson returns keep its whole buffer alive, some kilobytes, and a state stays in
    memory as long as its object. Turns that only compare their state need no copy.
    """
    return bytes(memoryview(encoded))


def _short(path: str) -> str:
    return path if len(path) <= 100 else path[:97] + "…"

"""The state codec: state to JSON bytes and back, exactly.

Instances are read and built through their storage, see `layout`; the forms of the fields' types
write and read the values, see `forms`; orjson writes and parses the bytes. The forms are ours, and
strict: orjson writes NaN as null and tuples as lists, and converters turn ``"3"`` into 3 where an
int is declared. The codec encodes a value only if it is of the declared type and would be read back
as it is. Otherwise it raises an error that names the field.

docs/reference/state.md lists the types with exact JSON.

Two members of a state aren't fields. They are the last ones, and the same in all states of a class:

- ``"$as"`` is the declaration that the state was written by: the terms of all fields that aren't
  plain JSON, see `forms`, and of the classes that these name, under ``"$"``. A state with another
  declaration than the present one is read by `resolution`. State of releases before 0.2 has none.
- ``"$schema"`` is the schema of the state, if it isn't 1, see `upgrades`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import orjson

from .._errors import (
    DefinitionError,
    StateDecodeError,
    StateEncodeError,
    StateTooLarge,
    StateTooNew,
)
from .._keys import ObjectKey
from .._text import short_repr
from .depth import MAX_DEPTH, check_depth
from .errors import Unfit, as_unfit
from .forms import PLAIN, Places, Reader, Table, Taken, nests
from .records import RecordForm
from .resolution import Resolution
from .terms import OLD, are_terms
from .upgrades import SCHEMA_MEMBER, UpgradeDefinition, upgraded

DEFAULT_MAX_STATE_SIZE = 16 * 1024 * 1024
DECLARATION_MEMBER = "$as"
_CLASSES = "$"
"""The member of a declaration with the terms of its classes."""
_SHORT_END = 32
"""In bytes; parsing that many takes as long as cutting them off."""
_MAX_DECLARATIONS = 64
"""Other declarations whose readers are kept."""


class StateCodec:
    """Encodes and decodes the state of one class.

    Args:
        form: The form of the class.
        max_size: The limit of a state's JSON, in bytes.
        schema: The schema of the class's state.
        upgrades: The upgrades to this schema, by the schema of the data they take.

    Raises:
        DefinitionError: The default state can't be stored.
    """

    def __init__(
        self,
        form: RecordForm,
        max_size: int = DEFAULT_MAX_STATE_SIZE,
        schema: int = 1,
        upgrades: Mapping[int, UpgradeDefinition] = MappingProxyType({}),
    ) -> None:
        self._form = form
        self._cls = form.cls
        self._max_size = max_size
        self._schema = schema
        self._upgrades = upgrades
        self._nests = nests(form)
        self._write = form.write
        self._end = _end_of_states(form, schema)
        self.max_fields_size: int = max_size + 1 - len(self._end)
        """The most bytes that encoded fields may have, without their declaration."""
        # The reader skips a short end, and what isn't parsed needs no time.
        self._cut = len(self._end) if len(self._end) > _SHORT_END else 0
        self._others: dict[bytes, Reader] = {}
        """Readers of states that another declaration wrote, by its JSON."""
        self.default_fields: bytes | None = None
        """The fields of a new object; None if its defaults aren't the same each time."""
        self._check_default()
        self._shared_defaults = form.shared_defaults()

    def _check_default(self) -> None:
        name = self._cls.__qualname__
        taken: Taken = []
        try:
            default = self._form.build({}, taken)
        except Exception as error:
            unfit = as_unfit(error)
            raise DefinitionError(
                name,
                unfit.path.lstrip("."),
                f"its default state can't be created: {unfit.problem}",
            ) from error
        key = ObjectKey(name, "default")
        try:
            encoded = self.encode_fields(key, default)
            self.check_size(key, encoded)
            decoded = self.decode_fields(key, encoded)
        except (StateEncodeError, StateDecodeError) as error:
            raise DefinitionError(
                name, error.field, f"the default can't be stored: {error.problem or error}"
            ) from error
        if self.encode_fields(key, decoded) != encoded:
            raise DefinitionError(
                name,
                "",
                f"the default {short_repr(default)} is not read back as written; choose another",
            )
        if not taken:
            self.default_fields = compact(encoded)

    # --- fields in memory ------------------------------------------------------------------------

    def new_instance(self) -> Any:
        """A new instance with defaults that are the same each time. It shares immutable ones."""
        form, values = self._form, self._shared_defaults
        if values is None:
            return form.build({}, [])
        instance = form.layout.new()
        for name, value in values:
            object.__setattr__(instance, name, value)
        return instance

    def new_fields(self, key: ObjectKey) -> bytes:
        """The fields of a new object, each at its default.

        Raises:
            StateEncodeError: A default can't be stored.
            Exception: The error of a default's factory, or of a validator.
        """
        return compact(self.encode_fields(key, self._form.build({}, [])))

    def encode_fields(self, key: ObjectKey, instance: Any, places: Places | None = None) -> bytes:
        """The fields of ``instance`` as JSON, without their declaration.

        The same state gives the same bytes. Only the order in which dicts were filled makes a
        difference.

        Args:
            key: The object, for errors.
            instance: An instance of the class.
            places: Gets the identities of all mutable parts, once for each place of theirs.

        Raises:
            StateEncodeError: JSON can't represent a value exactly, or an attribute isn't a declared
                field.
        """
        try:
            data = self._write(instance, [] if places is None else places)
            if self._nests:
                _check_depths(data)
            return orjson.dumps(data)
        except Exception as error:  # noqa: BLE001  # hooks and validators may raise anything
            raise self._encode_error(key, instance, error) from None

    def decode_fields(self, key: ObjectKey, fields: bytes) -> Any:
        """A new instance with the fields that `encode_fields` returned.

        Raises:
            StateDecodeError: A value doesn't fit its field.
        """
        try:
            return self._form.read(orjson.loads(fields), [])
        except Exception as error:
            raise self._decode_error(key, error) from error

    def check_size(self, key: ObjectKey, fields: bytes) -> None:
        """Check the size of a state that is to be stored. Stored states of any size can be read.

        Raises:
            StateTooLarge: It exceeds the limit.
        """
        if len(fields) > self.max_fields_size:
            size = len(fields) - 1 + len(self._end)
            raise StateTooLarge(key, "", "", size, self._max_size)

    # --- stored state ----------------------------------------------------------------------------

    def stored(self, fields: bytes) -> bytes:
        """The state to store, which are the ``fields`` and their declaration."""
        return fields[:-1] + self._end

    def encode(self, key: ObjectKey, instance: Any) -> bytes:
        """The state to store of ``instance``, see `encode_fields`.

        Raises:
            StateEncodeError: JSON can't represent a value exactly, or an attribute isn't a declared
                field.
        """
        return self.stored(self.encode_fields(key, instance))

    def decode(self, key: ObjectKey, state: bytes, taken: Taken | None = None) -> Any:
        """A new instance with a stored state, of this declaration and schema or earlier ones.

        Fields missing in ``state`` get their defaults; unknown members are dropped.

        Args:
            key: The object, for errors.
            state: The state.
            taken: Gets the names of missing fields whose default another call wouldn't make again.

        Raises:
            StateTooNew: It was written at a later schema.
            StateDecodeError: It isn't JSON, an upgrade failed, or a value doesn't fit its field.
        """
        notes = [] if taken is None else taken
        if state.endswith(self._end):
            cut = self._cut
            data = _parsed(key, state[:-cut] + b"}" if cut else state)
            before = len(notes)
            try:
                return self._form.read(data, notes)
            except Exception:  # noqa: BLE001  # hooks and validators may raise anything
                # Declarations don't tell plain members of a union apart: `str | UUID` is recorded
                # as `int | UUID` is. Below, a UUID is read that was a str.
                del notes[before:]
        return self._decode_other(key, _parsed(key, state), notes)

    def _decode_other(self, key: ObjectKey, data: Any, taken: Taken) -> Any:
        """Read a state of another declaration or schema, or in other formatting."""
        if type(data) is not dict:
            raise StateDecodeError(key, "", "$", f"{short_repr(data)} is not a JSON object")
        recorded = data.pop(DECLARATION_MEMBER, None)
        schema = data.pop(SCHEMA_MEMBER, 1)
        if recorded is not None:
            _check_declaration(key, recorded)
        made: frozenset[str] = frozenset()
        if type(schema) is not int or schema != self._schema:
            before = {name: orjson.dumps(value) for name, value in data.items()}
            data = self._at_this_schema(key, data, schema)
            made = frozenset(
                name for name, value in data.items() if before.get(name) != orjson.dumps(value)
            )
        try:
            return self._reader(recorded, made)(data, taken)
        except Exception as error:
            failure = self._decode_error(key, error)
            if schema != self._schema:
                failure.problem += f" (upgraded from schema {schema})"
            raise failure from error

    def _reader(self, recorded: Any, made: frozenset[str]) -> Reader:
        """The reader of states that another declaration wrote.

        Args:
            recorded: The declaration; None in state of a release without one.
            made: Members that upgrades made, whose declaration is the present one.
        """
        identity = orjson.dumps([recorded, sorted(made)], option=orjson.OPT_SORT_KEYS)
        reader = self._others.get(identity)
        if reader is None:
            if len(self._others) >= _MAX_DECLARATIONS:
                self._others.clear()
            reader = self._others[identity] = self._made_reader(recorded, made)
        return reader

    def _made_reader(self, recorded: Any, made: frozenset[str]) -> Reader:
        form = self._form
        terms, otherwise = (recorded, PLAIN) if recorded is not None else ({}, OLD)
        stored = Resolution(terms.get(_CLASSES, {}))
        upgraded = Resolution({}, is_canonical=False)
        readers: dict[str, Reader] = {}
        for name, part in form.fields.items():
            member = form.keys[name]
            if member in made or name in made:
                readers[name] = upgraded.reader(OLD, part)
            else:
                readers[name] = stored.reader(terms.get(member, otherwise), part)
        return partial(form.read_with, readers)

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

    def _encode_error(self, key: ObjectKey, instance: Any, error: Exception) -> StateEncodeError:
        unfit = as_unfit(error)
        if isinstance(error, orjson.JSONEncodeError):
            unfit = self._unfit_of_orjson(instance, error)
        path = _short(unfit.path.lstrip(".")) or "?"
        return StateEncodeError(key, path, unfit.problem)

    def _unfit_of_orjson(self, instance: Any, error: Exception) -> Unfit:
        """The error of orjson, with the path to the value that it refuses."""
        names = {member: name for name, member in self._form.keys.items()}
        for member, value in self._form.write(instance, []).items():
            try:
                orjson.dumps(value)
            except orjson.JSONEncodeError as cause:
                found = _located(value, cause)
                return found.within(f".{names[member]}")
        return as_unfit(error)

    def _decode_error(self, key: ObjectKey, error: Exception) -> StateDecodeError:
        unfit = as_unfit(error)
        field = ""
        if unfit.path.startswith("."):
            field = re.split(r"[.\[]", unfit.path[1:], maxsplit=1)[0]
        return StateDecodeError(key, field, _short(f"${unfit.path}"), unfit.problem)


def compact(encoded: bytes) -> bytes:
    """A copy of encoded fields that takes no more memory than its bytes.

    The bytes that orjson returns keep its whole buffer alive, some kilobytes, and a state stays in
    memory as long as its object. Turns that only compare their state need no copy.
    """
    return bytes(memoryview(encoded))


def _end_of_states(form: RecordForm, schema: int) -> bytes:
    """The end of all stored states of a class: its declaration and its schema."""
    table = Table()
    declaration: dict[str, Any] = form.terms(table)
    if table.classes:
        declaration[_CLASSES] = table.classes
    members: dict[str, Any] = {DECLARATION_MEMBER: declaration}
    if schema != 1:
        members[SCHEMA_MEMBER] = schema
    encoded = orjson.dumps(members)[1:]
    return b"," + encoded if form.fields else encoded


def _check_depths(data: dict[str, Any]) -> None:
    """Check that no member of a state is nested too deeply.

    Raises:
        Unfit: One is.
    """
    for name, member in data.items():
        try:
            check_depth(member, MAX_DEPTH - 1)
        except Unfit as unfit:
            raise unfit.within(f".{name}") from None


def _parsed(key: ObjectKey, state: bytes) -> Any:
    try:
        return orjson.loads(state)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise StateDecodeError(key, "", place, f"not JSON ({error.msg})") from error


def _check_declaration(key: ObjectKey, recorded: Any) -> None:
    """Check that a recorded declaration is one, and not the work of an editor.

    Raises:
        StateDecodeError: It isn't.
    """
    classes = recorded.get(_CLASSES, {}) if type(recorded) is dict else None
    if type(classes) is not dict or not are_terms(recorded, classes):
        raise StateDecodeError(
            key,
            "",
            f"$.{DECLARATION_MEMBER}",
            f"{short_repr(recorded)} is not a declaration of state",
        )


def _located(value: Any, error: Exception) -> Unfit:
    """The error of the first part of a value that orjson refuses."""
    kind = type(value)
    parts = value.items() if kind is dict else enumerate(value) if kind is list else ()
    for place, part in parts:
        try:
            orjson.dumps(part)
        except orjson.JSONEncodeError as cause:
            return _located(part, cause).within(f"[{place!r}]")
    return Unfit(str(error))


def _short(path: str) -> str:
    return path if len(path) <= 100 else path[:97] + "…"

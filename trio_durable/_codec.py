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
minutes), date, time, timedelta, Decimal, UUID, enums, list, tuple, set, frozenset, dict (with
keys of str, int, Enum, UUID, date, datetime, Decimal), Literal, NewType, Annotated, TypedDict,
NamedTuple, nested attrs classes and dataclasses, unions of these, and Any or object for plain
JSON.

In a union with more than one member besides None, members that aren't plain JSON scalars are
written as ``{"$type": name, "value": …}``, so that reading never has to guess.
"""

from __future__ import annotations

import base64
import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

import attrs
import orjson
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ._errors import DefinitionError, StateDecodeError, StateEncodeError, StateTooLarge
from ._keys import ObjectKey

Hook = Callable[[Any], Any]

DEFAULT_MAX_STATE_SIZE = 16 * 1024 * 1024


class Unfit(ValueError):
    """A value that can't be carried exactly; ``path`` leads to it from where encoding began."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def within(self, step: str) -> Unfit:
        """The same, seen from one level further out."""
        self.path = step + self.path
        return self


class UnsupportedType(TypeError):
    """An annotation that this codec has no exact JSON for."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _expected(what: str, value: object) -> Unfit:
    return Unfit(f"{_shown(value)} is of type {type(value).__name__}, not {what}")


# --- scalars: a pair of functions each, write(value) and read(json) -------------------------------


def _write_int(value: Any) -> Any:
    if type(value) is not int and type(value) is not bool:
        raise _expected("int", value)
    return value


def _write_float(value: Any) -> Any:
    if type(value) is float:
        if value - value != 0.0:
            raise Unfit(f"JSON has no {value}; store None or a finite number")
    elif type(value) is not int or abs(value) > 2**53:
        raise _expected("float", value)
    return value


def _write_bool(value: Any) -> Any:
    if type(value) is not bool:
        raise _expected("bool", value)
    return value


def _write_str(value: Any) -> Any:
    if type(value) is not str:
        raise _expected("str", value)
    return value


def _write_none(value: Any) -> Any:
    if value is not None:
        raise _expected("None", value)
    return value


def _read_float(value: Any) -> Any:
    if type(value) is not float and type(value) is not int:
        raise _expected("float", value)
    return value


def _write_bytes(value: Any) -> str:
    if type(value) is not bytes:
        raise _expected("bytes", value)
    return base64.b64encode(value).decode()


def _read_bytes(value: Any) -> bytes:
    return base64.b64decode(_write_str(value), validate=True)


def _write_datetime(value: Any) -> str:
    if type(value) is not datetime:
        raise _expected("datetime", value)
    _check_clock_fields(value)
    return value.isoformat()


def _check_clock_fields(value: datetime | time) -> None:
    zone = value.tzinfo
    if zone is not None:
        if type(zone) is not timezone:
            raise Unfit(
                f"{_shown(value)} has the time zone {zone}, of which JSON would keep the offset "
                "only; store .astimezone(UTC), and the zone's name beside it if it matters"
            )
        if zone != timezone(offset := zone.utcoffset(None)) or zone.tzname(None) != timezone(
            offset
        ).tzname(None):
            raise Unfit(f"{_shown(value)} has a named offset; store .astimezone(UTC)")
    if value.fold:
        raise Unfit(f"{_shown(value)} has fold=1, which JSON would lose; store it in UTC")


def _read_datetime(value: Any) -> datetime:
    return datetime.fromisoformat(_write_str(value))


def _write_date(value: Any) -> str:
    if type(value) is not date:
        raise _expected("date", value)
    return value.isoformat()


def _read_date(value: Any) -> date:
    return date.fromisoformat(_write_str(value))


def _write_time(value: Any) -> str:
    if type(value) is not time:
        raise _expected("time", value)
    _check_clock_fields(value)
    return value.isoformat()


def _read_time(value: Any) -> time:
    return time.fromisoformat(_write_str(value))


_MICROSECOND = timedelta(microseconds=1)


def _write_timedelta(value: Any) -> int:
    if type(value) is not timedelta:
        raise _expected("timedelta", value)
    return value // _MICROSECOND


def _read_timedelta(value: Any) -> timedelta:
    if type(value) is not int:
        raise _expected("timedelta (whole microseconds)", value)
    return timedelta(microseconds=value)


def _write_decimal(value: Any) -> str:
    if type(value) is not Decimal:
        raise _expected("Decimal", value)
    if not value.is_finite():
        raise Unfit(f"{value} is not a finite Decimal")
    return str(value)


def _read_decimal(value: Any) -> Decimal:
    return Decimal(_write_str(value))


def _write_uuid(value: Any) -> str:
    if type(value) is not UUID:
        raise _expected("UUID", value)
    return str(value)


def _read_uuid(value: Any) -> UUID:
    return UUID(_write_str(value))


_SCALARS: dict[Any, tuple[Hook, Hook]] = {
    int: (_write_int, _write_int),
    float: (_write_float, _read_float),
    bool: (_write_bool, _write_bool),
    str: (_write_str, _write_str),
    type(None): (_write_none, _write_none),
    bytes: (_write_bytes, _read_bytes),
    datetime: (_write_datetime, _read_datetime),
    date: (_write_date, _read_date),
    time: (_write_time, _read_time),
    timedelta: (_write_timedelta, _read_timedelta),
    Decimal: (_write_decimal, _read_decimal),
    UUID: (_write_uuid, _read_uuid),
}

_JSON_SCALARS = (int, float, bool, str, type(None))


def write_json(value: Any) -> Any:
    """Pass plain JSON data on as it is.

    Raises:
        Unfit: Something in it is not None, bool, int, a finite float, str, list or dict with
            keys of str.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return _write_float(value)
    try:
        if kind is list:
            for index, item in enumerate(value):
                if type(item) is not str:
                    try:
                        write_json(item)
                    except Unfit as unfit:
                        raise unfit.within(f"[{index}]") from None
            return value
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise Unfit(f"the key {_shown(key)} is not a str; declare the dict's types")
                try:
                    write_json(item)
                except Unfit as unfit:
                    raise unfit.within(f"[{key!r}]") from None
            return value
    except RecursionError:
        raise Unfit("it is nested too deeply, or contains itself") from None
    raise Unfit(
        f"{_shown(value)} is of type {kind.__name__}, which plain JSON doesn't have; "
        "declare the field's type"
    )


def _read_json(value: Any) -> Any:
    return value


# --- containers ----------------------------------------------------------------------------------

_LISTS = (list, MutableSequence, Sequence)
_SETS = (set, frozenset)
_DICTS = (dict, Mapping, MutableMapping)


def _writes_items(write: Hook, item_type: Any) -> Callable[[Iterable[Any]], list[Any]]:
    """A function that writes all items of an iterable, at C speed where the type allows it."""
    if item_type in (int, str, bool):
        accepted: set[type] = {int, bool} if item_type is int else {item_type}

        def write_all(items: Iterable[Any]) -> list[Any]:
            items = list(items)
            if not accepted.issuperset(map(type, items)):
                return _each(write, items)
            return items

        return write_all
    return lambda items: _each(write, items)


def _each(write: Hook, items: Iterable[Any]) -> list[Any]:
    written: list[Any] = []
    try:
        for item in items:
            written.append(write(item))  # noqa: PERF401 - how far it came is needed below
    except Unfit as unfit:
        raise unfit.within(f"[{len(written)}]") from None
    return written


def _read_items(read: Hook, value: Any) -> list[Any]:
    if type(value) is not list:
        raise _expected("list", value)
    return _each(read, value)


def _sorted(items: list[Any]) -> list[Any]:
    # Equal sets must give equal bytes, or a turn that changed nothing would write.
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=orjson.dumps)


# --- types ---------------------------------------------------------------------------------------

_pairs: dict[Any, tuple[Hook, Hook]] = {}
_converter = Converter()  # used for the functions that it generates for classes


def _hooks(tp: Any) -> tuple[Hook, Hook]:
    """The functions that write a ``tp`` as JSON data and read it back.

    Raises:
        UnsupportedType: There is no exact way.
    """
    try:
        pair = _pairs.get(tp)
    except TypeError:  # an unhashable annotation, such as Annotated[int, []]
        return _make_hooks(tp)
    if pair is None:
        # A class may contain itself: while its hooks are being made, they stand for themselves.
        _pairs[tp] = (lambda value: _pairs[tp][0](value), lambda value: _pairs[tp][1](value))
        try:
            pair = _pairs[tp] = _make_hooks(tp)
        except BaseException:
            del _pairs[tp]
            raise
    return pair


def _make_hooks(tp: Any) -> tuple[Hook, Hook]:
    origin = get_origin(tp) or tp
    if tp is Any or tp is object:
        return write_json, _read_json
    if tp is None:
        return _SCALARS[type(None)]
    if tp in _SCALARS:
        return _SCALARS[tp]
    if origin in (Annotated, Final, Required, NotRequired):
        return _hooks(get_args(tp)[0])
    if hasattr(tp, "__supertype__"):  # NewType
        return _hooks(tp.__supertype__)
    if origin in (Union, types.UnionType):
        return _union_hooks(tp)
    if origin is Literal:
        return _literal_hooks(tp)
    if origin is tuple:
        return _tuple_hooks(tp)
    if origin in _LISTS or origin in _SETS:
        return _collection_hooks(tp)
    if origin in _DICTS:
        return _dict_hooks(tp)
    if is_typeddict(origin):
        return _typeddict_hooks(tp)
    if isinstance(tp, type):
        if issubclass(tp, Enum):
            return _enum_hooks(tp)
        if issubclass(tp, tuple) and hasattr(tp, "_fields"):
            return _namedtuple_hooks(tp)
        if attrs.has(tp) or is_dataclass(tp):
            return _class_hooks(tp)
    raise UnsupportedType(
        f"{getattr(tp, '__qualname__', tp)} has no exact JSON form here; use an attrs class, a "
        "dataclass or plain types"
    )


def _writer(tp: Any) -> Hook:
    return _hooks(tp)[0]


def _reader(tp: Any) -> Hook:
    return _hooks(tp)[1]


def _enum_hooks(tp: type[Enum]) -> tuple[Hook, Hook]:
    for member in tp:
        if type(member.value) not in (str, int):
            raise UnsupportedType(
                f"{tp.__qualname__}.{member.name} has a value that is neither str nor int"
            )

    def write(value: Any) -> Any:
        if type(value) is not tp:
            raise _expected(tp.__qualname__, value)
        return value.value

    def read(value: Any) -> Any:
        if type(value) not in (str, int):
            raise _expected(f"a value of {tp.__qualname__}", value)
        return tp(value)

    return write, read


def _literal_hooks(tp: Any) -> tuple[Hook, Hook]:
    members = get_args(tp)
    if any(type(member) not in _JSON_SCALARS for member in members):
        raise UnsupportedType(f"{tp} has members that aren't plain JSON")

    def check(value: Any) -> Any:
        for member in members:
            if type(value) is type(member) and value == member:
                return value
        raise Unfit(f"{_shown(value)} is none of {', '.join(map(repr, members))}")

    return check, check


def _collection_hooks(tp: Any) -> tuple[Hook, Hook]:
    origin = get_origin(tp) or tp
    (item_type,) = get_args(tp) or (Any,)
    write_items = _writes_items(_writer(item_type), item_type)
    read_item = _reader(item_type)
    kind = origin if origin in _SETS else list

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise _expected(kind.__name__, value)
        return write_items(value)

    if kind is list:
        return write, lambda value: _read_items(read_item, value)
    return lambda value: _sorted(write(value)), lambda value: kind(_read_items(read_item, value))


def _tuple_hooks(tp: Any) -> tuple[Hook, Hook]:
    args = get_args(tp) or (Any, ...)
    if len(args) == 2 and args[1] is ...:
        write_items = _writes_items(_writer(args[0]), args[0])
        read_item = _reader(args[0])

        def write(value: Any) -> list[Any]:
            if type(value) is not tuple:
                raise _expected("tuple", value)
            return write_items(value)

        return write, lambda value: tuple(_read_items(read_item, value))
    if args == ((),):
        args = ()
    return _row_hooks(tuple, args, tuple)


def _namedtuple_hooks(tp: Any) -> tuple[Hook, Hook]:
    hints = get_type_hints(tp, include_extras=True)
    types_ = [hints.get(name, Any) for name in tp._fields]
    return _row_hooks(tp, types_, lambda items: tp(*items))


def _row_hooks(
    kind: Any, item_types: Sequence[Any], make: Callable[[list[Any]], Any]
) -> tuple[Hook, Hook]:
    """Hooks for a sequence of fixed length in which each item has its own type."""
    writers = [_writer(item_type) for item_type in item_types]
    readers = [_reader(item_type) for item_type in item_types]

    def convert(hooks: list[Hook], items: Sequence[Any]) -> list[Any]:
        if len(items) != len(hooks):
            raise Unfit(f"{_shown(items)} has {len(items)} items instead of {len(hooks)}")
        out: list[Any] = []
        try:
            for hook, item in zip(hooks, items, strict=True):
                out.append(hook(item))
        except Unfit as unfit:
            raise unfit.within(f"[{len(out)}]") from None
        return out

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise _expected(kind.__name__, value)
        return convert(writers, value)

    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _expected("list", value)
        return make(convert(readers, value))

    return write, read


def _dict_hooks(tp: Any) -> tuple[Hook, Hook]:
    key_type, value_type = get_args(tp) or (str, Any)
    write_key, read_key = _key_hooks(key_type)
    write_value = _writer(value_type)
    read_value = _reader(value_type)

    def write(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _expected("dict", value)
        written = {}
        for key, item in value.items():
            try:
                written[write_key(key)] = write_value(item)
            except Unfit as unfit:
                raise unfit.within(f"[{key!r}]") from None
        return written

    def read(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise _expected("dict", value)
        made = {}
        for key, item in value.items():
            try:
                made[read_key(key)] = read_value(item)
            except Unfit as unfit:
                raise unfit.within(f"[{key!r}]") from None
        return made

    return write, read


def _key_hooks(tp: Any) -> tuple[Hook, Hook]:
    if tp is Any or tp is object:
        tp = str
    while hasattr(tp, "__supertype__"):  # NewType
        tp = tp.__supertype__
    if tp is int:
        # bool is an int too, but "True" is not how JSON spells it.
        def write_int_key(value: Any) -> str:
            if type(value) is not int:
                raise _expected("int", value)
            return str(value)

        return write_int_key, int
    if isinstance(tp, type) and issubclass(tp, Enum):
        write, _ = _enum_hooks(tp)
        by_text = {str(member.value): member for member in tp}
        if len(by_text) != len(tp):
            raise UnsupportedType(f"two members of {tp.__qualname__} would be the same JSON key")

        def read_enum_key(text: str) -> Enum:
            if text not in by_text:
                raise Unfit(f"{text!r} is no value of {tp.__qualname__}")
            return by_text[text]

        return lambda value: str(write(value)), read_enum_key
    if tp in (str, UUID, date, datetime, Decimal) or get_origin(tp) is Literal:
        write, read = _writer(tp), _reader(tp)
        if get_origin(tp) is not Literal or all(type(m) is str for m in get_args(tp)):
            return write, read
    raise UnsupportedType(f"{tp} can't be the key of a dict in JSON; str, int and enums can")


def _union_hooks(tp: Any) -> tuple[Hook, Hook]:
    members = get_args(tp)
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and len(members) == 2:
        write_one, read_one = _writer(others[0]), _reader(others[0])
        return (
            lambda value: None if value is None else write_one(value),
            lambda value: None if value is None else read_one(value),
        )
    plain = {member for member in members if member in _JSON_SCALARS}
    tagged: dict[str, tuple[type, Hook, Hook]] = {}
    by_kind: dict[type, tuple[str, Hook]] = {}
    for member in members:
        if member in plain:
            continue
        kind = get_origin(member) or member
        kind = list if kind in _LISTS else dict if kind in _DICTS else kind
        tag = getattr(kind, "__name__", "")
        if not isinstance(kind, type) or tag in tagged:
            raise UnsupportedType(f"{tp}: its members can't be told apart by their class")
        write, read = _writer(member), _reader(member)
        tagged[tag] = (kind, write, read)
        by_kind[kind] = (tag, write)

    def write_union(value: Any) -> Any:
        kind = type(value)
        if kind in plain:
            return _SCALARS[kind][0](value)
        if kind not in by_kind:
            raise Unfit(f"{_shown(value)} is of type {kind.__name__}, which is not part of {tp}")
        tag, write = by_kind[kind]
        return {"$type": tag, "value": write(value)}

    def read_union(value: Any) -> Any:
        if type(value) in plain:
            return value
        if type(value) is dict and set(value) == {"$type", "value"}:
            found = tagged.get(value["$type"])
            if found is None:
                raise Unfit(f"{value['$type']!r} is not part of {tp}")
            return found[2](value["value"])
        # Written when the union had one member besides None.
        for _, _, read in tagged.values():
            try:
                return read(value)
            except (ValueError, TypeError, KeyError, ArithmeticError):
                continue
        raise Unfit(f"{_shown(value)} fits no part of {tp}")

    return write_union, read_union


def _class_hooks(tp: Any) -> tuple[Hook, Hook]:
    """Hooks for an attrs class or a dataclass."""
    cls = tp
    types_ = get_type_hints(cls, include_extras=True)
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    types_ = {field.name: types_[field.name] for field in fields}
    write_fields, read_fields = _field_functions(cls, types_)

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise _expected(cls.__qualname__, value)
        try:
            return write_fields(value)
        except Unfit:
            for name, field_type in types_.items():
                try:
                    _writer(field_type)(getattr(value, name))
                except Unfit as unfit:
                    raise unfit.within(f".{name}") from None
            raise

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _expected(f"an object with the fields of {cls.__qualname__}", value)
        try:
            return read_fields(value, cls)
        except Exception as error:
            for name, field_type in types_.items():
                if name in value:
                    try:
                        _reader(field_type)(value[name])
                    except Exception as cause:
                        raise _as_unfit(cause).within(f".{name}") from None
            raise _as_unfit(error) from error

    return write, read


def _field_functions(cls: Any, types_: Mapping[str, Any]) -> tuple[Hook, Callable[[Any, Any], Any]]:
    """What cattrs generates to take a class apart and put it together, over our hooks."""

    def reading(read: Hook) -> Callable[[Any, Any], Any]:
        return lambda value, _: read(value)

    overrides: dict[str, Any] = {
        name: override(unstruct_hook=write, struct_hook=reading(read), omit=False)
        for name, (write, read) in ((name, _hooks(tp)) for name, tp in types_.items())
    }
    return (
        make_dict_unstructure_fn(cls, _converter, _cattrs_include_init_false=True, **overrides),
        make_dict_structure_fn(
            cls,
            _converter,
            _cattrs_include_init_false=True,
            _cattrs_forbid_extra_keys=False,
            _cattrs_detailed_validation=False,
            **overrides,
        ),
    )


def _as_unfit(error: Exception) -> Unfit:
    return error if isinstance(error, Unfit) else Unfit(f"{type(error).__name__}: {error}")


def _typeddict_hooks(tp: Any) -> tuple[Hook, Hook]:
    hints = get_type_hints(tp)
    hooks = {name: (_writer(hint), _reader(hint)) for name, hint in hints.items()}
    required = tp.__required_keys__

    def convert(value: Any, which: int) -> dict[str, Any]:
        if type(value) is not dict:
            raise _expected(tp.__qualname__, value)
        missing = required - value.keys()
        if missing:
            raise Unfit(f"{_shown(value)} lacks {', '.join(sorted(missing))}")
        converted = {}
        for key, item in value.items():
            if key not in hooks:
                raise Unfit(f"{key!r} is not a key of {tp.__qualname__}")
            try:
                converted[key] = hooks[key][which](item)
            except Unfit as unfit:
                raise unfit.within(f"[{key!r}]") from None
        return converted

    return lambda value: convert(value, 0), lambda value: convert(value, 1)


# --- states --------------------------------------------------------------------------------------


class StateCodec:
    """Encodes and decodes the state of one class.

    Raises:
        DefinitionError: A field's type has no exact JSON form, or a default doesn't survive it.
    """

    def __init__(self, cls: type[Any], max_size: int = DEFAULT_MAX_STATE_SIZE) -> None:
        self._cls = cls
        self._max_size = max_size
        self._fields = attrs.fields(cls)
        self._names = frozenset(field.name for field in self._fields)
        self._count = len(self._fields) + 1  # and ctx
        for field in self._fields:
            try:
                _hooks(field.type)
            except (UnsupportedType, NameError) as error:
                raise DefinitionError(cls.__qualname__, field.name, str(error)) from error
        self._write, self._read = _field_functions(
            cls, {field.name: field.type for field in self._fields}
        )
        self._check_default()

    def _check_default(self) -> None:
        default = self._cls()
        key = ObjectKey(self._cls.__qualname__, "default")
        try:
            decoded = self.decode(key, self.encode(key, default))
        except (StateEncodeError, StateDecodeError) as error:
            raise DefinitionError(
                self._cls.__qualname__, error.field, f"the default can't be stored: {error.problem}"
            ) from error
        for field in self._fields:
            if getattr(decoded, field.name) != getattr(default, field.name):
                raise DefinitionError(
                    self._cls.__qualname__,
                    field.name,
                    f"the default {_shown(getattr(default, field.name))} comes back from JSON as "
                    f"{_shown(getattr(decoded, field.name))}",
                )

    def encode(self, key: ObjectKey, instance: Any) -> bytes:
        """The state of ``instance`` as JSON. Equal states give equal bytes.

        Raises:
            StateEncodeError: A value that JSON can't carry exactly, or an attribute that isn't a
                declared field.
            StateTooLarge: More than the limit.
        """
        if len(instance.__dict__) > self._count:
            self._refuse_undeclared(key, instance)
        try:
            encoded = orjson.dumps(self._write(instance))
        except Exception as error:
            raise self._encode_error(key, instance, error) from None
        if len(encoded) > self._max_size:
            raise StateTooLarge(key, "", "", len(encoded), self._max_size)
        return encoded

    def decode(self, key: ObjectKey, state: bytes) -> Any:
        """A new instance with the state that `encode` gave.

        Fields missing in ``state`` get their defaults, unknown ones are dropped.

        Raises:
            StateDecodeError: It isn't JSON, or a value doesn't fit its field.
        """
        try:
            data = orjson.loads(state)
        except orjson.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            raise StateDecodeError(key, "", place, f"not JSON ({error.msg})") from error
        if type(data) is not dict:
            raise StateDecodeError(key, "", "$", f"{_shown(data)} is not a JSON object")
        try:
            return self._read(data, self._cls)
        except Exception as error:
            raise self._decode_error(key, data, error) from error

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
                orjson.dumps(_writer(field.type)(getattr(instance, field.name)))
            except Exception as cause:
                unfit = _as_unfit(cause)
                return StateEncodeError(key, field.name + unfit.path, unfit.problem)
        return StateEncodeError(key, "?", str(error))

    def _decode_error(
        self, key: ObjectKey, data: dict[str, Any], error: Exception
    ) -> StateDecodeError:
        for field in self._fields:
            if field.name in data:
                try:
                    _reader(field.type)(data[field.name])
                except Exception as cause:
                    unfit = _as_unfit(cause)
                    return StateDecodeError(
                        key, field.name, f"$.{field.name}{unfit.path}", unfit.problem
                    )
        # Each value is of its type, so a validator refused one.
        return StateDecodeError(key, "", "$", f"{type(error).__name__}: {error}")

"""JSON for annotations: what writes and reads a value of a given type, however it is composed.

Composed from `_json_scalars`, `_json_choices`, `_json_keys` and `_json_classes` by the rules that
`_codec` states.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import is_dataclass
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

import attrs
import orjson

from .._text import short_repr
from .choices import enum_hooks, literal_hooks
from .classes import class_hooks
from .errors import Unfit, UnsupportedType, expected
from .keys import key_hooks
from .plain import read_json, write_json
from .scalars import JSON_SCALARS, SCALARS, Hook

_pairs: dict[Any, tuple[Hook, Hook]] = {}


def hooks_for(tp: Any) -> tuple[Hook, Hook]:
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
    if origin in (Annotated, Final, Required, NotRequired):
        return hooks_for(get_args(tp)[0])
    if tp is Any or tp is object:
        return write_json, read_json
    if tp is None:
        return SCALARS[type(None)]
    if tp in SCALARS:
        return SCALARS[tp]
    if hasattr(tp, "__supertype__"):  # NewType
        return hooks_for(tp.__supertype__)
    if origin in (Union, types.UnionType):
        return _union_hooks(tp)
    if origin is Literal:
        return literal_hooks(tp)
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
            return enum_hooks(tp)
        if issubclass(tp, tuple) and hasattr(tp, "_fields"):
            return _namedtuple_hooks(tp)
        if attrs.has(tp) or is_dataclass(tp):
            return class_hooks(tp, hooks_for)
    raise UnsupportedType(
        f"{getattr(tp, '__qualname__', tp)} has no exact JSON form here; use an attrs class, a "
        "dataclass or plain types"
    )


def writer_for(tp: Any) -> Hook:
    """How values of the type become JSON."""
    return hooks_for(tp)[0]


def reader_for(tp: Any) -> Hook:
    """How values of the type come back from JSON."""
    return hooks_for(tp)[1]


def _arguments(tp: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """What stands in the brackets of a generic type; without brackets, ``default``."""
    arguments = get_args(tp) or default
    if len(arguments) != len(default):  # which Python itself doesn't mind
        raise UnsupportedType(f"{tp} needs {len(default)} in its brackets, not {len(arguments)}")
    return arguments


def _collection_hooks(tp: Any) -> tuple[Hook, Hook]:
    origin = get_origin(tp) or tp
    (item_type,) = _arguments(tp, (Any,))
    write_items = _writes_items(writer_for(item_type), item_type)
    read_item = reader_for(item_type)
    kind = origin if origin in _SETS else list

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise expected(kind.__name__, value)
        return write_items(value)

    if kind is list:
        return write, lambda value: _read_items(read_item, value)
    return lambda value: _sorted(write(value)), lambda value: kind(_read_items(read_item, value))


def _tuple_hooks(tp: Any) -> tuple[Hook, Hook]:
    args = get_args(tp) or (Any, ...)
    if len(args) == 2 and args[1] is ...:
        write_items = _writes_items(writer_for(args[0]), args[0])
        read_item = reader_for(args[0])

        def write(value: Any) -> list[Any]:
            if type(value) is not tuple:
                raise expected("tuple", value)
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
    writers = [writer_for(item_type) for item_type in item_types]
    readers = [reader_for(item_type) for item_type in item_types]

    def convert(hooks: list[Hook], items: Sequence[Any]) -> list[Any]:
        if len(items) != len(hooks):
            raise Unfit(f"{short_repr(items)} has {len(items)} items instead of {len(hooks)}")
        out: list[Any] = []
        try:
            for hook, item in zip(hooks, items, strict=True):
                out.append(hook(item))
        except Unfit as unfit:
            raise unfit.within(f"[{len(out)}]") from None
        return out

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise expected(kind.__name__, value)
        return convert(writers, value)

    def read(value: Any) -> Any:
        if type(value) is not list:
            raise expected("list", value)
        return make(convert(readers, value))

    return write, read


def _dict_hooks(tp: Any) -> tuple[Hook, Hook]:
    key_type, value_type = _arguments(tp, (str, Any))
    write_key, read_key = key_hooks(key_type)
    write_value = writer_for(value_type)
    read_value = reader_for(value_type)

    def write(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected("dict", value)
        written = {}
        for key, item in value.items():
            try:
                written[write_key(key)] = write_value(item)
            except Unfit as unfit:
                raise unfit.within(f"[{key!r}]") from None
        return written

    def read(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise expected("dict", value)
        made = {}
        for key, item in value.items():
            try:
                made[read_key(key)] = read_value(item)
            except Unfit as unfit:
                raise unfit.within(f"[{key!r}]") from None
        return made

    return write, read


def _union_hooks(tp: Any) -> tuple[Hook, Hook]:
    members = get_args(tp)
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and len(members) == 2:
        write_one, read_one = writer_for(others[0]), reader_for(others[0])
        return (
            lambda value: None if value is None else write_one(value),
            lambda value: None if value is None else read_one(value),
        )
    if Any in members or object in members:
        raise UnsupportedType(f"{tp}: Any swallows the other members; declare one of them")
    plain = {member for member in members if member in JSON_SCALARS}
    tagged: dict[str, tuple[type, Hook, Hook]] = {}
    by_kind: dict[type, tuple[str, Hook]] = {}
    for member in members:
        if member in plain:
            continue
        kind = get_origin(member) or member
        if kind in _LISTS:
            kind = list
        elif kind in _DICTS or is_typeddict(kind):
            kind = dict
        tag = getattr(kind, "__name__", "")
        if not isinstance(kind, type) or tag in tagged:
            raise UnsupportedType(f"{tp}: its members can't be told apart by their class")
        write, read = writer_for(member), reader_for(member)
        tagged[tag] = (kind, write, read)
        by_kind[kind] = (tag, write)

    def write_union(value: Any) -> Any:
        kind = type(value)
        if kind in plain:
            return SCALARS[kind][0](value)
        if kind not in by_kind:
            raise Unfit(
                f"{short_repr(value)} is of type {kind.__name__}, which is not part of {tp}"
            )
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
        raise Unfit(f"{short_repr(value)} fits no part of {tp}")

    return write_union, read_union


def _typeddict_hooks(tp: Any) -> tuple[Hook, Hook]:
    # With its extras: where annotations are strings, __required_keys__ doesn't know them.
    hints = get_type_hints(tp, include_extras=True)
    hooks = {name: (writer_for(hint), reader_for(hint)) for name, hint in hints.items()}
    required = {
        name
        for name, hint in hints.items()
        if get_origin(hint) is Required
        or (name in tp.__required_keys__ and get_origin(hint) is not NotRequired)
    }

    def convert(value: Any, which: int) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(tp.__qualname__, value)
        missing = required - value.keys()
        if missing:
            raise Unfit(f"{short_repr(value)} lacks {', '.join(sorted(missing))}")
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
        raise expected("list", value)
    return _each(read, value)


def _sorted(items: list[Any]) -> list[Any]:
    # Equal sets must give equal bytes, or a turn that changed nothing would write.
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=orjson.dumps)

"""JSON for containers: lists, sets, tuples and dicts, over the hooks of their items' types.

Each function makes the pair of hooks of one type. ``hooks_for`` finds the hooks of any type, and
calls these functions itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints

import orjson

from .errors import Unfit, UnsupportedType, as_unfit, expected
from .keys import key_hooks
from .scalars import Hook, HooksFor
from .text import short_repr

LISTS = (list, MutableSequence, Sequence)
"""Types whose values are lists."""
SETS = (set, frozenset)
DICTS = (dict, Mapping, MutableMapping)
"""Types whose values are dicts."""


def collection_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a list or a set, whose items all have one type."""
    origin = get_origin(tp) or tp
    (item_type,) = _arguments(tp, (Any,))
    write_item, read_item = hooks_for(item_type)
    write_items = _items_writer(write_item, item_type)
    kind = origin if origin in SETS else list

    def write(value: Any) -> list[Any]:
        if type(value) is not kind:
            raise expected(kind.__name__, value)
        return write_items(value)

    if kind is list:
        return write, lambda value: _read_items(read_item, value)

    def read_set(value: Any) -> Any:
        items = _read_items(read_item, value)
        try:
            return kind(items)
        except Exception as error:  # an item's __hash__ may raise anything
            raise as_unfit(error) from error

    return lambda value: _sorted(write(value)), read_set


def tuple_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a tuple: of any length and one type, or with a type for each item."""
    args = get_args(tp) or (Any, ...)
    if len(args) == 2 and args[1] is ...:
        write_item, read_item = hooks_for(args[0])
        write_items = _items_writer(write_item, args[0])

        def write(value: Any) -> list[Any]:
            if type(value) is not tuple:
                raise expected("tuple", value)
            return write_items(value)

        return write, lambda value: tuple(_read_items(read_item, value))
    if args == ((),):
        args = ()
    return _row_hooks(tuple, args, tuple, hooks_for)


def namedtuple_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a ``NamedTuple``, which is stored as a list."""
    hints = get_type_hints(tp, include_extras=True)
    types_ = [hints.get(name, Any) for name in tp._fields]
    return _row_hooks(tp, types_, lambda items: tp(*items), hooks_for)


def _row_hooks(
    kind: Any,
    item_types: Sequence[Any],
    make: Callable[[list[Any]], Any],
    hooks_for: HooksFor,
) -> tuple[Hook, Hook]:
    """Hooks for a sequence of fixed length in which each item has its own type."""
    pairs = [hooks_for(item_type) for item_type in item_types]
    writers = [write for write, _ in pairs]
    readers = [read for _, read in pairs]

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
        items = convert(readers, value)
        try:
            return make(items)
        except Exception as error:  # a named tuple's __new__ may raise anything
            raise as_unfit(error) from error

    return write, read


def dict_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a dict, whose keys and values have one type each."""
    key_type, value_type = _arguments(tp, (str, Any))
    write_key, read_key = key_hooks(key_type)
    write_value, read_value = hooks_for(value_type)

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
            except ValueError as error:  # Unfit, or of int(), which reads keys at C speed
                raise as_unfit(error).within(f"[{key!r}]") from None
        return made

    return write, read


def typeddict_hooks(tp: Any, hooks_for: HooksFor) -> tuple[Hook, Hook]:
    """Hooks for a ``TypedDict``, whose keys are fixed and have a type each."""
    # With its extras: where annotations are strings, __required_keys__ doesn't know them.
    hints = get_type_hints(tp, include_extras=True)
    hooks = {name: hooks_for(hint) for name, hint in hints.items()}
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


# --- items ---------------------------------------------------------------------------------------


def _arguments(tp: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a generic type; of a bare one, ``default``."""
    arguments = get_args(tp) or default
    if len(arguments) != len(default):  # Python itself doesn't check
        types_ = "1 type" if len(default) == 1 else f"{len(default)} types"
        raise UnsupportedType(f"{tp} needs {types_} in its brackets, not {len(arguments)}")
    return arguments


def _items_writer(write: Hook, item_type: Any) -> Callable[[Iterable[Any]], list[Any]]:
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


def _each(hook: Hook, items: Iterable[Any]) -> list[Any]:
    converted: list[Any] = []
    try:
        for item in items:
            converted.append(hook(item))  # noqa: PERF401 - its length is the index of a bad item
    except Unfit as unfit:
        raise unfit.within(f"[{len(converted)}]") from None
    return converted


def _read_items(read: Hook, value: Any) -> list[Any]:
    if type(value) is not list:
        raise expected("list", value)
    return _each(read, value)


def _sorted(items: list[Any]) -> list[Any]:
    # Equal sets must give equal bytes, or a turn that changed nothing would be saved.
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=orjson.dumps)

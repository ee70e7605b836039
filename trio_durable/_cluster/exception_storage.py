"""Exceptions by their storage: read, and built again, without running any code of their classes.

An exception keeps its arguments, a ``__dict__``, and slots: those of its class, and those of a base
in C, such as ``OSError.errno``. It is built by the ``__new__`` of that base and without any
``__init__``, which would need arguments that aren't known.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._json.annotations import is_among
from .._json.layout import HEAP_TYPE

_ROOTS = (object, BaseException, Exception, BaseExceptionGroup)
"""Classes whose slots are read and set here by name."""
_UNSENT = frozenset({"obj"})
"""Slots of bases in C that Python leaves out of pickles as well."""
_args: Any = vars(BaseException)["args"]
_dict: Any = vars(BaseException)["__dict__"]
_traceback: Any = vars(BaseException)["__traceback__"]
_message: Any = vars(BaseExceptionGroup)["message"]
_parts: Any = vars(BaseExceptionGroup)["exceptions"]
_module_dict: Any = vars(types.ModuleType)["__dict__"]
_class_dict: Any = vars(type)["__dict__"]
_mro: Any = vars(type)["__mro__"]
_base: Any = vars(type)["__base__"]
_NOTES = "__notes__"


# --- classes -------------------------------------------------------------------------------------


def class_named(name: str) -> type[Exception] | None:
    """The class of exceptions of a name such as ``shop.errors:OutOfStock``.

    Nothing is imported. Only the namespaces of modules and classes are read, since a function may
    make the attributes of a module.

    Returns:
        The class; None if its module isn't imported, or has no class of exceptions of that name.
    """
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        if issubclass(type(found), types.ModuleType):
            namespace = _module_dict.__get__(found)
        elif issubclass(type(found), type):
            namespace = _class_dict.__get__(found)
        else:
            return None
        found = namespace.get(part)
    if issubclass(type(found), type) and issubclass(found, Exception):
        cls: type[Exception] = found
        return cls
    return None


def name_of_class(cls: type) -> str | None:
    """The name by which `class_named` finds a class; None if it doesn't."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    return name if class_named(name) is cls else None


# --- reading -------------------------------------------------------------------------------------


def args_of(error: BaseException) -> tuple[Any, ...]:
    """The arguments of an exception."""
    args: tuple[Any, ...] = _args.__get__(error)
    return args


def attributes_of(error: BaseException) -> dict[str, Any]:
    """The attributes of an exception: its slots and its ``__dict__``, without notes."""
    found = {name: value for name, value in _dict.__get__(error).items() if name != _NOTES}
    for base, name, slot in _slots(type(error)):
        try:
            value = slot.__get__(error)
        except AttributeError:
            continue
        if base.__flags__ & HEAP_TYPE or not (value is None or name in _UNSENT):
            found.setdefault(name, value)
    return found


def notes_of(error: BaseException) -> list[str]:
    """The notes of an exception."""
    notes = _dict.__get__(error).get(_NOTES)
    return [note for note in notes if type(note) is str] if type(notes) is list else []


def traceback_of(error: BaseException) -> types.TracebackType | None:
    """The traceback of an exception."""
    trace: types.TracebackType | None = _traceback.__get__(error)
    return trace


def parts_of(group: BaseExceptionGroup[Any]) -> tuple[str, tuple[BaseException, ...]]:
    """The message and the exceptions of a group."""
    return _message.__get__(group), _parts.__get__(group)


def _slots(cls: type) -> Iterator[tuple[type, str, Any]]:
    for base in _mro.__get__(cls):
        in_c = not base.__flags__ & HEAP_TYPE
        if is_among(base, _ROOTS) or (in_c and issubclass(base, UnicodeError)):
            continue
        for name, member in _class_dict.__get__(base).items():
            if type(member) is types.MemberDescriptorType:
                yield base, name, member


# --- building ------------------------------------------------------------------------------------


def built(
    cls: type[Exception],
    args: tuple[Any, ...],
    attributes: Mapping[str, Any],
) -> Exception:
    """An exception with these arguments and attributes.

    Raises:
        Exception: The class has no exception with them.
    """
    base = _base_in_c(cls)
    new: Any = base.__new__
    made: Any
    if issubclass(base, BaseExceptionGroup):
        message, parts = args
        made = new(cls, message, parts)
    else:
        made = new(cls)
        if issubclass(base, UnicodeError):
            _init_unicode_error(base, made, args)
    if type(made) is not cls:
        raise TypeError(f"{cls.__name__} makes exceptions of another class")
    _args.__set__(made, args)
    slots = {name: slot for _, name, slot in _slots(cls)}
    in_dict = _dict.__get__(made)
    for name, value in attributes.items():
        if name in slots:
            slots[name].__set__(made, value)
        elif name != _NOTES:
            in_dict[name] = value
    error: Exception = made
    return error


def add_notes(error: BaseException, notes: Sequence[str]) -> None:
    """Add notes to an exception that `built` has made."""
    if notes:
        _dict.__get__(error).setdefault(_NOTES, []).extend(notes)


def _base_in_c(cls: type) -> type:
    """The class that makes the instances of a class of exceptions.

    Raises:
        TypeError: It isn't one of Python's own.
    """
    base = cls
    while base.__flags__ & HEAP_TYPE:
        base = _base.__get__(base)
    if _class_dict.__get__(base).get("__module__", "builtins") != "builtins":
        raise TypeError(f"{cls.__name__} has the base {base.__name__}, written in C")
    return base


def _init_unicode_error(base: Any, error: Any, args: tuple[Any, ...]) -> None:
    """Set the slots of a UnicodeError, which its own functions read without a check of types.

    Raises:
        Exception: The arguments don't fit.
    """
    if base is UnicodeError:
        return
    text, start, end = args[-4:-1]
    if not 0 <= start <= end <= len(text):
        raise ValueError("the positions are outside of the text")
    base.__init__(error, *args)

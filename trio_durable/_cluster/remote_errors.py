"""Exceptions by value: an error of a handler for a caller in another process.

The caller gets an exception of the same class, with the same arguments, attributes and notes, and
the traceback as one more note, which has the causes as well. The class is found by its name among
the modules that are imported; nothing is imported for it, and its ``__init__`` doesn't run. The
caller gets a `RemoteError` instead if

- its process has no such class,
- the exception is none of `Exception`'s: an exit or a cancellation belongs to its process,
- the exception would say anything else there, since its text depends on values that aren't plain.

Other attributes that aren't plain are left out, which a note says. Long texts are cut. The data of
an error may be anything: whatever can't be read gives a `RemoteError` as well.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from itertools import islice
from typing import Any

import orjson

from .._errors import RemoteError
from .._json.errors import Unfit
from .._text import error_summary, short_repr
from .exception_storage import (
    add_notes,
    args_of,
    attributes_of,
    built,
    class_named,
    name_of_class,
    notes_of,
    parts_of,
    traceback_of,
)
from .plain_values import Budget, plain_data, plain_value, text_data

_MAX_SIZE = 64 * 1024
_MAX_TEXT = 8 * 1024
_MAX_NOTES = 32
_MAX_PARTS = 32
"""The most exceptions of one group."""
_MAX_DEPTH = 8
"""The most groups within each other."""
_MAX_FRAMES = 30
_TRACEBACK_START, _TRACEBACK_END = 4 * 1024, 12 * 1024
"""Characters at the start and the end of a long traceback."""
_MAX_VALUES = 64
"""The most arguments, and the most attributes."""
_OUR_OWN = "trio_durable:"
_GROUP = "builtins:ExceptionGroup"


def encode_error(error: BaseException, *, with_traceback: bool = True) -> bytes:
    """The JSON of an exception. It raises nothing for any `Exception`.

    Args:
        error: The exception.
        with_traceback: Send its traceback. It is of no use for errors that are answers, and takes
            longer than all else.
    """
    try:
        data = _data(error, Budget(_MAX_SIZE, _MAX_TEXT), 0)
        if with_traceback:
            data["traceback"] = text_data(_traceback_text(error))
        return orjson.dumps(data)
    except Exception as problem:  # noqa: BLE001  # any code of the class may run, and raise
        text = f"the error can't be sent ({_cut(error_summary(problem))})"
        return orjson.dumps({"type": _cut(type(error).__name__), "message": text})


def decode_error(data: object, where: str = "another process") -> Exception:
    """The exception of parsed JSON, which may be anything. It raises nothing.

    Args:
        data: The data of `encode_error`, of any release.
        where: The process in which it was raised, for the note with the traceback.
    """
    error = _error(data, 0)
    text = _text(data, "traceback")
    if text:
        add_notes(error, [f"Raised in {where}:\n{text.rstrip()}"])
    return error


# --- writing -------------------------------------------------------------------------------------


def _data(error: Any, budget: Budget, depth: int) -> dict[str, Any]:
    cls, message = type(error), _message(error)
    data: dict[str, Any] = {
        "type": text_data(budget.text(_type_name(cls))),
        "message": text_data(budget.text(message)),
    }
    left_out: list[str] = []
    # By the class, since isinstance() asks the exception for its __class__ as well.
    if issubclass(cls, BaseExceptionGroup) and depth < _MAX_DEPTH:
        data["parts"] = _parts(error, budget, depth)
        data["message"] = text_data(budget.text(parts_of(error)[0]))
        data["class"] = name_of_class(cls) or _GROUP
        data["attributes"] = _attributes(error, budget, left_out)
    else:
        contents = _contents(error, message, budget, left_out)
        if contents is None:
            left_out.clear()
        else:
            data |= contents
    notes = notes_of(error)[:_MAX_NOTES]
    if left_out:
        notes.append(f"Not sent by the process that raised it: {', '.join(left_out)}")
    if notes:
        data["notes"] = [text_data(budget.text(note)) for note in notes]
    return data


def _contents(
    error: BaseException, message: str, budget: Budget, left_out: list[str]
) -> dict[str, Any] | None:
    """The class, the arguments and the attributes; None if the caller can't have them."""
    name, args = name_of_class(type(error)), args_of(error)
    if name is None or len(args) > _MAX_VALUES:
        return None
    found = {"class": name, "args": [], "attributes": {}}
    budget.has_cut = False
    try:
        found["args"] = [_arg(*each, budget, left_out) for each in enumerate(args, 1)]
        found["attributes"] = _attributes(error, budget, left_out)
        # Whoever prints an error that lacks a part should get its text, and not an AttributeError.
        text = str(_built(found))
    except Exception:  # noqa: BLE001  # __str__ may raise anything
        return None
    return found if text == message or budget.has_cut else None


def _arg(number: int, value: Any, budget: Budget, left_out: list[str]) -> Any:
    try:
        return plain_data(value, budget)
    except Unfit:
        left_out.append(f"argument {number}, {type(value).__name__}")
        return text_data(budget.text(str(value)))


def _attributes(error: BaseException, budget: Budget, left_out: list[str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    found = attributes_of(error)
    for name, value in islice(found.items(), _MAX_VALUES):
        try:
            if type(name) is str and text_data(budget.text(name)) == name:
                attributes[name] = plain_data(value, budget)
        except Unfit:
            left_out.append(f"attribute {name}, {type(value).__name__}")
    if len(found) > _MAX_VALUES:
        left_out.append(f"{len(found) - _MAX_VALUES:,} more attributes")
    return attributes


def _parts(group: BaseExceptionGroup[Any], budget: Budget, depth: int) -> list[dict[str, Any]]:
    _, parts = parts_of(group)
    data = [_data(part, budget, depth + 1) for part in parts[:_MAX_PARTS]]
    if len(parts) > _MAX_PARTS:
        more = len(parts) - _MAX_PARTS
        data.append({"type": "ExceptionGroup", "message": f"{more:,} more exceptions"})
    return data


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # __str__ may raise anything
        return "its text can't be made"


def _type_name(cls: type) -> str:
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def _traceback_text(error: BaseException) -> str:
    """The traceback as Python prints it, with the causes; without the notes, which are sent."""
    try:
        made = traceback.TracebackException(
            type(error), error, traceback_of(error), limit=-_MAX_FRAMES, compact=True
        )
        made.__notes__ = None
        text = "".join(made.format())
    except Exception as problem:  # noqa: BLE001  # any code of the class may run, and raise
        return f"(its traceback can't be formatted: {_cut(error_summary(problem))})"
    if len(text) > _TRACEBACK_START + _TRACEBACK_END:
        text = f"{text[:_TRACEBACK_START]}\n…\n{text[-_TRACEBACK_END:]}"
    return text


def _cut(text: str) -> str:
    return text[:200].encode(errors="backslashreplace").decode()


# --- reading -------------------------------------------------------------------------------------


def _error(data: Any, depth: int) -> Exception:
    try:
        error = _built(data, depth)
        if data["class"].startswith(_OUR_OWN):
            str(error)  # its fields are there, and of their types
    except Exception:  # noqa: BLE001  # the data may be anything
        error = RemoteError(_text(data, "type") or "an error", _text(data, "message"))
    with suppress(Exception):
        add_notes(error, [_plain_text(note) for note in data.get("notes", ())])
    return error


def _built(data: Any, depth: int = 0) -> Exception:
    """The exception, if its class is found here.

    Raises:
        Exception: It isn't, or the data is that of no exception.
    """
    cls = class_named(data["class"])
    if cls is None:
        raise LookupError(data["class"])
    attributes = {name: plain_value(each) for name, each in data["attributes"].items()}
    if not issubclass(cls, BaseExceptionGroup):
        return built(cls, tuple(map(plain_value, data["args"])), attributes)
    if depth > _MAX_DEPTH:
        raise Unfit("it is nested too deeply")
    parts = [_error(part, depth + 1) for part in data["parts"]]
    return built(cls, (_plain_text(data["message"]), parts), attributes)


def _text(data: Any, name: str) -> str:
    try:
        return _plain_text(data.get(name, ""))
    except Exception:  # noqa: BLE001  # the data may be anything
        return short_repr(data)


def _plain_text(data: Any) -> str:
    text = plain_value(data)
    if type(text) is not str:
        raise TypeError(f"{short_repr(text)} is no text")
    return text

"""Readers of the data of other types, from which `resolution` builds the reader of a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from .._text import short_repr
from .errors import Unfit, as_unfit, expected
from .forms import FieldsForm, Form, Reader, Taken
from .models import EXTRA
from .rows import NamedTupleForm
from .sets import in_order
from .terms import noun_of
from .texts import BIG_INT


def refusing(term: Any, form: Form) -> Reader:
    """A reader that refuses all data, since no rule reads the recorded type as the present one."""

    def refuse(data: Any, _: Taken) -> Any:
        raise Unfit(
            f"{short_repr(data)} was written as {noun_of(term)}, which can't be read as "
            f"{form.name} without a guess; write an @upgrade"
        )

    return refuse


def only_one(form: Form, readers: Sequence[Reader], remedy: str = "write an @upgrade") -> Reader:
    """A reader over several, exactly one of which must read the data.

    Args:
        form: The form of the union, for errors.
        readers: The readers.
        remedy: The advice in the error.
    """

    def read_only_one(data: Any, taken: Taken) -> Any:
        found: list[tuple[Any, Taken]] = []
        for read in readers:
            notes: Taken = []
            try:
                found.append((read(data, notes), notes))
            except Exception:  # noqa: BLE001, S112  # hooks may raise anything
                continue
        if len(found) != 1:
            fits = "fits no part" if not found else "fits more than one part"
            raise Unfit(f"{short_repr(data)} {fits} of {form.name}; {remedy}")
        value, notes = found[0]
        taken.extend(notes)
        return value

    return read_only_one


def canonical(form: Form) -> Reader:
    """A reader of data that the form would write."""

    def read_canonical(data: Any, taken: Taken) -> Any:
        value = form.read(data, taken)
        if form.write(value, []) != data:
            raise Unfit(f"{short_repr(data)} is not how a {form.name} is written")
        return value

    return read_canonical


def reader_of(form: Form, accepts: Callable[[Any], bool]) -> Reader:
    """The reader of a form, for data that ``accepts`` accepts."""

    def read_accepted(data: Any, taken: Taken) -> Any:
        if not accepts(data):
            raise expected(form.name, data)
        return form.read(data, taken)

    return read_accepted


def read_big_as_int(data: Any, taken: Taken) -> Any:
    """Read a recorded BigInt as an int."""
    value = BIG_INT.read(data, taken)
    if value not in range(-(2**63), 2**64):
        raise Unfit(f"{short_repr(value)} exceeds 64 bits")
    return value


def int_or(read: Reader) -> Reader:
    """A reader that takes an int as it is, as a BigInt does which was an int before."""
    return lambda data, taken: data if type(data) is int else read(data, taken)


def each_of(read: Reader) -> Callable[[Any, Taken], list[Any]]:
    """A reader of a list over one of its items."""

    def read_items(data: Any, taken: Taken) -> list[Any]:
        if type(data) is not list:
            raise expected("list", data)
        items: list[Any] = []
        try:
            for item in data:
                items.append(read(item, taken))  # noqa: PERF401 - its length is the index
        except Exception as error:  # noqa: BLE001  # hooks may raise anything
            raise as_unfit(error).within(f"[{len(items)}]") from None
        return items

    return read_items


def in_written_order(read: Reader) -> Reader:
    """A reader of a set from a list, which must be as the set would be written."""

    def read_ordered(data: Any, taken: Taken) -> Any:
        value = read(data, taken)
        if not is_same_json(in_order(list(data)), data):
            raise Unfit(
                f"{short_repr(data)} isn't in the order of a set, so its order would be lost"
            )
        return value

    return read_ordered


def without_extra(read: Reader) -> Reader:
    """A reader of a model's data as another kind of class, which has no place for extra values."""

    def read_without_extra(data: Any, taken: Taken) -> Any:
        if type(data) is dict and EXTRA in data:
            raise Unfit("its extra values would be lost; write an @upgrade").within(f".{EXTRA}")
        return read(data, taken)

    return read_without_extra


def rows(data: Any, form: NamedTupleForm) -> list[Any]:
    """The items of a NamedTuple, perhaps of a release in which it had fewer fields.

    Raises:
        Unfit: It isn't a list, or has too many items.
    """
    if type(data) is not list:
        raise expected("list", data)
    if len(data) > len(form.items):
        raise Unfit(f"{short_repr(data)} has {len(data)} items instead of {len(form.items)}")
    return data


def of_declared_keys(form: FieldsForm, readers: Mapping[str, Reader]) -> Reader:
    """A reader of an object of another name: all its keys must be declared, and none be missing."""
    names = {key: name for name, key in form.keys.items()}
    required = {form.keys[name] for name in form.fields if form.is_required(name)}

    def read_declared(data: Any, taken: Taken) -> Any:
        if type(data) is not dict:
            raise expected(f"an object with the fields of {form.name}", data)
        unknown, missing = data.keys() - names.keys(), required - data.keys()
        if unknown or missing:
            problem = f"is no field of {form.name}" if unknown else "is missing"
            raise Unfit(f"{min(unknown or missing)} {problem}")
        return form.read_with(readers, data, taken)

    return read_declared


def is_same_json(one: Any, other: Any) -> bool:
    """True if two JSON values are the same but for the order of members."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        other, option=orjson.OPT_SORT_KEYS
    )

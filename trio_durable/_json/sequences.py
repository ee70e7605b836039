"""Sequences: lists, tuples and deques, and rows, whose items have a type each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .._text import short_repr
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, Form, Places, Reader, Table, Taken, Term, Writer


class SequenceForm(Form):
    """The form of a list, a tuple of any length or a deque, whose items have one type.

    A deque with a ``maxlen`` is written as an object with its items and its maxlen.

    Args:
        kind: list, tuple or deque.
        item: The form of the items.
    """

    __slots__ = ("item", "kind")

    def __init__(self, kind: type, item: Form) -> None:
        self.kind: Any = kind
        self.item = item
        self.name = kind.__name__
        self.types = frozenset({kind})
        self.exact = NOTHING
        write_items, read_items = items_writer(item), items_reader(item)
        if kind is list:
            self.write = _list_writer(write_items)
            self.read = read_items
        elif kind is tuple:
            self.write = _tuple_writer(write_items)
            self.read = lambda data, taken: tuple(read_items(data, taken))
        else:
            self.write = _deque_writer(write_items)
            self.read = _deque_reader(read_items)

    def reader(self, read_items: Callable[[Any, Taken], list[Any]]) -> Reader:
        """A reader over one of a list of its items."""
        if self.kind is deque:
            return _deque_reader(read_items)
        return lambda data, taken: self.made(read_items(data, taken))

    def made(self, items: list[Any]) -> Any:
        """A value with these items."""
        return items if self.kind is list else self.kind(items)

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter((self.item,))

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return self.kind is list

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        item = table.term(self.item)
        return ["tuple", item, "..."] if self.kind is tuple else [self.name, item]


class RowForm(Form):
    """The form of a tuple of fixed length, whose items have a type each."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Form]) -> None:
        self.items = tuple(items)
        self.name = "tuple"
        self.types = frozenset({tuple})
        self.exact = NOTHING
        convert_out = row_converter([item.write for item in items])
        convert_in = row_converter([item.read for item in items])

        def write_row(value: Any, places: Places) -> list[Any]:
            if type(value) is not tuple:
                raise expected("tuple", value)
            return convert_out(value, places)

        def read_row(data: Any, taken: Taken) -> Any:
            if type(data) is not list:
                raise expected("list", data)
            return tuple(convert_in(data, taken))

        self.write, self.read = write_row, read_row

    def made(self, items: list[Any]) -> Any:
        """A value with these items."""
        return tuple(items)

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter(self.items)

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["tuple", *map(table.term, self.items)]


def row_converter(
    hooks: Sequence[Callable[[Any, Any], Any]],
) -> Callable[[Sequence[Any], Any], list[Any]]:
    """A function that converts the items of a row, each with its own hook."""

    def convert(items: Sequence[Any], notes: Any) -> list[Any]:
        if len(items) != len(hooks):
            raise Unfit(f"{short_repr(items)} has {len(items)} items instead of {len(hooks)}")
        out: list[Any] = []
        try:
            for hook, item in zip(hooks, items, strict=True):
                out.append(hook(item, notes))
        except Exception as error:  # noqa: BLE001  # hooks may raise anything
            raise as_unfit(error).within(f"[{len(out)}]") from None
        return out

    return convert


# --- items ---------------------------------------------------------------------------------------


def items_writer(item: Form) -> Callable[[Iterable[Any], Places], list[Any]]:
    """A function that writes all items of an iterable, at C speed where the type allows it."""
    exact = item.exact

    def write_items(items: Iterable[Any], places: Places) -> list[Any]:
        if exact:
            items = items if type(items) is list else list(items)
            if exact.issuperset(map(type, items)):
                return items
        write = item.write
        out: list[Any] = []
        try:
            for value in items:
                out.append(write(value, places))  # noqa: PERF401 - its length is the index
        except Exception as error:  # noqa: BLE001  # hooks may raise anything
            raise as_unfit(error).within(f"[{len(out)}]") from None
        return out

    return write_items


def items_reader(item: Form) -> Callable[[Any, Taken], list[Any]]:
    """A function that reads the items of a list into a list."""
    exact = item.exact

    def read_items(data: Any, taken: Taken) -> list[Any]:
        if type(data) is not list:
            raise expected("list", data)
        if exact and exact.issuperset(map(type, data)):
            return data
        read = item.read
        out: list[Any] = []
        try:
            for value in data:
                out.append(read(value, taken))  # noqa: PERF401 - its length is the index
        except Exception as error:  # noqa: BLE001  # hooks may raise anything
            raise as_unfit(error).within(f"[{len(out)}]") from None
        return out

    return read_items


def _list_writer(write_items: Callable[[Iterable[Any], Places], list[Any]]) -> Writer:
    def write_list(value: Any, places: Places) -> list[Any]:
        if type(value) is not list:
            raise expected("list", value)
        places.append(id(value))
        return write_items(value, places)

    return write_list


def _tuple_writer(write_items: Callable[[Iterable[Any], Places], list[Any]]) -> Writer:
    def write_tuple(value: Any, places: Places) -> list[Any]:
        if type(value) is not tuple:
            raise expected("tuple", value)
        return write_items(value, places)

    return write_tuple


def _deque_writer(write_items: Callable[[Iterable[Any], Places], list[Any]]) -> Writer:
    def write_deque(value: Any, places: Places) -> Any:
        if type(value) is not deque:
            raise expected("deque", value)
        places.append(id(value))
        items = write_items(value, places)
        return items if value.maxlen is None else {"items": items, "maxlen": value.maxlen}

    return write_deque


def _deque_reader(read_items: Reader) -> Reader:
    def read_deque(data: Any, taken: Taken) -> Any:
        if type(data) is not dict:
            return deque(read_items(data, taken))
        if data.keys() != {"items", "maxlen"} or type(data["maxlen"]) is not int:
            raise expected("an object with items and maxlen", data)
        items, maxlen = data["items"], data["maxlen"]
        if type(items) is not list or not len(items) <= maxlen:
            raise Unfit(f"{short_repr(data)} has more items than its maxlen")
        return deque(read_items(items, taken), maxlen)

    return read_deque

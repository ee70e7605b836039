"""Sets and frozen sets, which are written as sorted lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from .._text import short_repr
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, Form, Places, Reader, Table, Taken, Term
from .sequences import items_reader, items_writer


class SetForm(Form):
    """The form of a set or a frozenset.

    Equal sets give equal JSON, or a turn that changed nothing would be saved. Two items with the
    same JSON are refused, on write and on read: one of them would be lost.

    Args:
        kind: set or frozenset.
        item: The form of the items.
    """

    __slots__ = ("item", "kind")

    def __init__(self, kind: type, item: Form) -> None:
        self.kind: Any = kind
        self.item = item
        self.name = name = kind.__name__
        self.types = frozenset({kind})
        self.exact = NOTHING
        write_items = items_writer(item)

        def write_set(value: Any, places: Places) -> list[Any]:
            if type(value) is not self.kind:
                raise expected(name, value)
            if kind is set:
                places.append(id(value))
            return in_order(write_items(value, places))

        self.write, self.read = write_set, self.reader(items_reader(item))

    def reader(self, read_items: Callable[[Any, Taken], list[Any]]) -> Reader:
        """A reader over one of a list of its items."""
        kind = self.kind

        def read_set(data: Any, taken: Taken) -> Any:
            items = read_items(data, taken)
            try:
                made = kind(items)
            except Exception as error:  # an item's __hash__ may raise anything
                raise as_unfit(error) from error
            if len(made) != len(items):
                raise Unfit(f"{short_repr(data)} has the same item twice, so it is no set")
            return made

        return read_set

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter((self.item,))

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return [self.name, table.term(self.item)]


def in_order(items: list[Any]) -> list[Any]:
    """The items in the order in which a set of them is written.

    Raises:
        Unfit: Two of them are the same.
    """
    try:
        return sorted(items) if items and type(items[0]) is not dict else _by_json(items)
    except TypeError:
        return _by_json(items)


def _by_json(items: list[Any]) -> list[Any]:
    if len(items) < 2:
        return items
    encoded = sorted(((orjson.dumps(item), item) for item in items), key=lambda pair: pair[0])
    previous = b""
    for text, item in encoded:
        if text == previous:
            raise Unfit(f"two items of the set became the same, {short_repr(item)}")
        previous = text
    return [item for _, item in encoded]

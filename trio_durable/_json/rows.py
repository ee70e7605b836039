"""Named tuples, which are written as lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from .._text import short_repr
from .defaults import Default
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, Form, Places, Reader, Table, Taken, Term
from .layout import Field, undeclared
from .sequences import row_converter


class NamedTupleForm(Form):
    """The form of a ``NamedTuple``.

    Its storage is the tuple: it is read and built as a tuple, never by the class's own code.

    Args:
        cls: The class.
        name: The name by which declarations know it.
        former: Names that it had before.
    """

    __slots__ = ("cls", "defaults", "former", "items", "names")

    def __init__(self, cls: type, name: str, former: tuple[str, ...] = ()) -> None:
        self.cls = cls
        self.name = name
        self.former = former
        self.types = frozenset({cls})
        self.exact = NOTHING
        self.names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
        self.items: tuple[Form, ...] = ()
        self.defaults: Mapping[str, Default] = {}
        self.write = lambda value, places: self.write(value, places)
        self.read = lambda data, taken: self.read(data, taken)

    def define(self, items: Sequence[Form]) -> None:
        """Make the functions of the class, over the forms of its fields."""
        self.items = tuple(items)
        values: dict[str, Any] = self.cls._field_defaults  # type: ignore[attr-defined]
        self.defaults = {
            name: Default(Field(name, values.get(name, attrs.NOTHING)), item)
            for name, item in zip(self.names, items, strict=True)
        }
        convert = row_converter([item.write for item in items])
        cls: Any = self.cls
        length = len(self.items)

        def write_row(value: Any, places: Places) -> list[Any]:
            if type(value) is not cls:
                raise expected(self.name, value)
            row: tuple[Any, ...] = tuple(tuple.__iter__(value))
            attributes = getattr(value, "__dict__", None)
            if attributes:
                raise undeclared(attributes, min(attributes))
            return convert(row, places)

        readers = [item.read for item in items]

        def read_row(data: Any, taken: Taken) -> Any:
            if type(data) is not list:
                raise expected("list", data)
            if len(data) > length:
                raise Unfit(f"{short_repr(data)} has {len(data)} items instead of {length}")
            return self.read_with(dict(zip(self.names, readers, strict=True)), data, taken)

        self.write, self.read = write_row, read_row

    def read_with(self, readers: Mapping[str, Reader], data: list[Any], taken: Taken) -> Any:
        """Read a row whose items are the fields that ``readers`` names, in their order.

        Any other field gets its default.
        """
        values: dict[str, Any] = {}
        for index, ((name, read), item) in enumerate(zip(readers.items(), data, strict=False)):
            try:
                values[name] = read(item, taken)
            except Exception as error:  # noqa: BLE001  # hooks may raise anything
                raise as_unfit(error).within(f"[{index}]") from None
        for name in self.names:
            if name not in values:
                values[name] = self.defaults[name].make(None, taken)
        return tuple.__new__(self.cls, [values[name] for name in self.names])

    def made(self, items: list[Any]) -> Any:
        """A value with these items."""
        return tuple.__new__(self.cls, items)

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter(self.items)

    def term(self, table: Table) -> Term:
        """See `Form.term`."""

        def entry() -> Term:
            fields: list[Term] = [
                [name, table.term(item)] for name, item in zip(self.names, self.items, strict=True)
            ]
            return ["NamedTuple", *fields]

        return ["class", table.name(self, entry)]

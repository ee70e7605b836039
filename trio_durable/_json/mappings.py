"""Mappings: dicts, whose keys and values have one type each, and typed dicts."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .._text import short_repr
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, FieldsForm, Form, Places, Reader, Table, Taken, Term
from .keys import KeyForm
from .scalars import INT


class MappingForm(Form):
    """The form of a dict, an OrderedDict, a Counter or a defaultdict.

    Args:
        kind: The class.
        key: The form of the keys.
        value: The form of the values.
        factory: The factory of a defaultdict, which makes a value of its type.
    """

    __slots__ = ("factory", "key", "kind", "value")

    def __init__(self, kind: type, key: KeyForm, value: Form, factory: Any = None) -> None:
        self.kind: Any = kind
        self.key = key
        self.value = value
        self.factory = factory
        self.name = kind.__name__
        self.types = frozenset({kind})
        self.exact = NOTHING
        self.write = self._writer()
        self.read = self.reader(key.read)

    def _writer(self) -> Callable[[Any, Places], dict[str, Any]]:
        kind: Any = self.kind
        factory = self.factory
        exact, exact_keys = self.value.exact, self.key.exact
        write_key, value_form = self.key.write, self.value

        def write_mapping(value: Any, places: Places) -> dict[str, Any]:
            if type(value) is not kind:
                raise expected(kind.__name__, value)
            if kind is defaultdict and value.default_factory is not factory:
                raise Unfit(
                    f"its default_factory is {short_repr(value.default_factory)}, not "
                    f"{short_repr(factory)}, the type of its values, so it would be lost"
                )
            places.append(id(value))
            if (
                exact
                and exact_keys
                and exact.issuperset(map(type, value.values()))
                and exact_keys.issuperset(map(type, value))
            ):
                return value if kind is dict else dict(value)
            write_value = value_form.write
            written: dict[str, Any] = {}
            for key, item in value.items():
                try:
                    written[write_key(key, places)] = write_value(item, places)
                except Exception as error:  # noqa: BLE001  # hooks may raise anything
                    raise as_unfit(error).within(f"[{short_repr(key)}]") from None
            if len(written) != len(value):
                raise Unfit("two of its keys are the same in JSON")
            return written

        return write_mapping

    def reader(self, read_key: Reader, read_value: Reader | None = None) -> Reader:
        """A reader of the mapping over readers of its keys and values."""
        is_direct = read_key is self.key.read and read_value is None
        exact, exact_keys = self.value.exact, self.key.exact
        value_form, make = self.value, self.made

        def read_mapping(data: Any, taken: Taken) -> Any:
            if type(data) is not dict:
                raise expected("dict", data)
            if is_direct and exact and exact_keys and exact.issuperset(map(type, data.values())):
                return make(data)
            read = value_form.read if read_value is None else read_value
            made: dict[Any, Any] = {}
            for key, item in data.items():
                try:
                    made[read_key(key, taken)] = read(item, taken)
                except Exception as error:  # noqa: BLE001  # hooks may raise anything
                    raise as_unfit(error).within(f"[{short_repr(key)}]") from None
            if len(made) != len(data):
                raise Unfit("two of its keys are the same")
            return make(made)

        return read_mapping

    def made(self, items: dict[Any, Any]) -> Any:
        """A value with these items."""
        if self.kind is dict:
            return items
        if self.kind is defaultdict:
            return defaultdict(self.factory, items)
        return Counter(items) if self.kind is Counter else OrderedDict(items)

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter((self.key, self.value))

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return self.kind is dict

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        key = table.term(self.key)
        if self.kind is Counter and self.value is INT:
            return [self.name, key]
        return [self.name, key, table.term(self.value)]


class TypedDictForm(FieldsForm):
    """The form of a ``TypedDict``, whose keys have a type each.

    A key that isn't declared is refused on write and dropped on read: the class may have lost it.

    Args:
        name: The class's name.
        former: Names that it had before.
    """

    __slots__ = ("extra", "required")

    def __init__(self, name: str, former: tuple[str, ...] = ()) -> None:
        self.name = name
        self.former = former
        self.types = frozenset({dict})
        self.exact = NOTHING
        self.fields = {}  # until `define`, since the class may contain itself
        self.keys = {}
        self.required: frozenset[str] = frozenset()
        self.extra: Form | None = None
        """The form of all other keys' values: ``extra_items``."""
        self.write, self.read = self._write, self._read

    def define(
        self, fields: Mapping[str, Form], required: frozenset[str], extra: Form | None
    ) -> None:
        """Set the forms of the keys' values."""
        self.fields = fields
        self.keys = {name: name for name in fields}
        self.required = required
        self.extra = extra

    @property
    def tag(self) -> str:
        """See `Form.tag`."""
        return "dict"

    def _write(self, value: Any, places: Places) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(self.name, value)
        self._check_required(value)
        places.append(id(value))
        written: dict[str, Any] = {}
        for key, item in value.items():
            form = self.fields.get(key, self.extra) if type(key) is str else None
            if form is None:
                raise Unfit(f"{short_repr(key)} is not a key of {self.name}")
            try:
                written[key] = form.write(item, places)
            except Exception as error:  # noqa: BLE001  # hooks may raise anything
                raise as_unfit(error).within(f"[{key!r}]") from None
        return written

    def read_with(self, readers: Mapping[str, Reader], data: Any, taken: Taken) -> dict[str, Any]:
        """See `FieldsForm.read_with`."""
        if type(data) is not dict:
            raise expected(f"an object with the keys of {self.name}", data)
        self._check_required(data)
        made: dict[str, Any] = {}
        for key, item in data.items():
            read = readers.get(key) or (None if self.extra is None else self.extra.read)
            if read is not None:
                try:
                    made[key] = read(item, taken)
                except Exception as error:  # noqa: BLE001  # hooks may raise anything
                    raise as_unfit(error).within(f"[{key!r}]") from None
        return made

    def _check_required(self, value: dict[Any, Any]) -> None:
        missing = self.required - value.keys()
        if missing:
            raise Unfit(f"{short_repr(value)} lacks {', '.join(sorted(missing))}")

    def is_required(self, name: str) -> bool:
        """See `FieldsForm.is_required`."""
        return name in self.required

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        yield from self.fields.values()
        if self.extra is not None:
            yield self.extra

    def term(self, table: Table) -> Term:
        """See `Form.term`."""

        def entry() -> Term:
            terms: Any = ["TypedDict", self.terms(table)]
            return terms if self.extra is None else [*terms, table.term(self.extra)]

        return ["class", table.name(self, entry)]

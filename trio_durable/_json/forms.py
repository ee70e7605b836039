"""Forms: the JSON form of one type, with the functions that write its values and read them back.

A form is made once for a type and holds the forms of the type's parts. It answers three questions:

- How is a value written, and how is it read? `Form.write` and `Form.read` are strict: a value of
  another type, or one that JSON would change, raises `Unfit`.
- Does a state have to say by which declaration it was written? The values of a *plain* form mean
  the same to any reader of JSON. Every other form has a *term*, which the state records.
- Which Python types do its values have? Unions and lists of scalars choose by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from .errors import as_unfit, expected

Places: TypeAlias = "list[int]"
"""Identities of the mutable objects that were written. One that comes twice stands in two places,
and is two objects once the state has been read again."""
Taken: TypeAlias = "list[str]"
"""Fields that were missing and took a value that another reader wouldn't get, such as a uuid4()."""

Writer = Callable[[Any, Places], Any]
"""Writes a value as JSON data; raises `Unfit` for a value that doesn't fit."""
Reader = Callable[[Any, Taken], Any]
"""Reads JSON data back; raises `Unfit` for data that doesn't fit."""

Term: TypeAlias = "str | list[Term]"
"""The declaration of a type as JSON, such as ``["list", "datetime"]``."""
PLAIN = "json"
"""The term of plain JSON."""

NOTHING: frozenset[type] = frozenset()


class Form:
    """The JSON form of a type."""

    __slots__ = ("exact", "name", "read", "types", "write")

    name: str
    """The type's name, for errors and in tags of unions."""
    types: frozenset[type]
    """The Python types of its values, exactly: of a subclass there is no value."""
    exact: frozenset[type]
    """The types whose values are their own JSON without a further look, and the other way round."""
    write: Writer
    read: Reader

    @property
    def tag(self) -> str:
        """The name by which a union knows its values."""
        return self.name

    def parts(self) -> Iterator[Form]:
        """The forms of the parts of its values."""
        return iter(())

    def is_plain_by_itself(self) -> bool:
        """True if its values are plain JSON as far as its parts' values are."""
        return False

    def is_unbounded(self) -> bool:
        """True if its values can be nested without a bound, though the form has no part."""
        return False

    def term(self, table: Table) -> Term:
        """Its term; `Table.term` calls it for forms that aren't plain."""
        return self.name


class FieldsForm(Form):
    """The form of a class with named fields, whose values are written as an object."""

    __slots__ = ("fields", "former", "keys")

    fields: Mapping[str, Form]
    """The form of each field, by the field's name."""
    keys: Mapping[str, str]
    """The name of each field in JSON."""
    former: tuple[str, ...]
    """Names that the class had before."""

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter(self.fields.values())

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["class", table.name(self, lambda: self.terms(table))]

    def is_required(self, name: str) -> bool:
        """True if a value can't be read without the field."""
        raise NotImplementedError

    @property
    def readers(self) -> Mapping[str, Reader]:
        """The readers of the fields, for data that lacks some or has them by other names."""
        return {name: form.read for name, form in self.fields.items()}

    def build(self, values: Mapping[str, Any], taken: Taken) -> Any:
        """A value with the ``values`` of its fields. A missing one gets its default.

        Raises:
            Unfit: A field without a default is missing, or a value is refused.
        """
        raise NotImplementedError

    def read_with(self, readers: Mapping[str, Reader], data: Any, taken: Taken) -> Any:
        """Read a value over readers of its fields. Members of ``data`` without one are dropped.

        A field is found by its name in JSON, or else by its own, which older releases wrote.

        Raises:
            Unfit: ``data`` doesn't fit the class.
        """
        if type(data) is not dict:
            raise expected(f"an object with the fields of {self.name}", data)
        values: dict[str, Any] = {}
        for name, read in readers.items():
            key = self.keys[name]
            key = key if key in data else name
            if key in data:
                try:
                    values[name] = read(data[key], taken)
                except Exception as error:  # hooks may raise anything
                    raise as_unfit(error).within(f".{name}") from error
        return self.build(values, taken)

    def _read(self, data: Any, taken: Taken) -> Any:
        return self.read_with(self.readers, data, taken)

    def terms(self, table: Table) -> dict[str, Term]:
        """The terms of the fields that aren't plain."""
        return {
            self.keys[name]: term
            for name, form in self.fields.items()
            if (term := table.term(form)) != PLAIN
        }


class Table:
    """The terms of one declaration: of its fields, and of the classes that these name.

    A class is named once, so that a class may contain itself. Two classes of the same name are
    numbered.
    """

    def __init__(self) -> None:
        self.classes: dict[str, Any] = {}
        self._names: dict[Form, str] = {}

    def term(self, form: Form) -> Term:
        """The term of a form."""
        return PLAIN if is_plain(form) else form.term(self)

    def name(self, form: Form, entry: Callable[[], Any]) -> str:
        """The name of a class in the table, which gets its ``entry`` if it has none."""
        name = self._names.get(form)
        if name is None:
            name, number = form.name, 2
            while name in self.classes:
                name, number = f"{form.name}#{number}", number + 1
            self._names[form] = name
            self.classes[name] = None  # a class that contains itself finds its name
            self.classes[name] = entry()
        return name


def reachable(form: Form) -> Iterator[Form]:
    """The form, and those of its parts at any depth, each once."""
    seen: set[Form] = set()
    rest = [form]
    while rest:
        form = rest.pop()
        if form not in seen:
            seen.add(form)
            yield form
            rest.extend(form.parts())


def is_plain(form: Form) -> bool:
    """True if all values of the form mean the same to any reader of JSON."""
    return all(each.is_plain_by_itself() for each in reachable(form))


def nests(form: Form) -> bool:
    """True if values of the form can be nested without a bound: it contains itself, or Any."""
    done: set[Form] = set()
    inside: set[Form] = set()

    def visit(form: Form) -> bool:
        if form in inside or form.is_unbounded():
            return True
        if form in done:
            return False
        inside.add(form)
        found = any(visit(part) for part in form.parts())
        inside.discard(form)
        done.add(form)
        return found

    return visit(form)


class Forward(Form):
    """A recursive alias, ``type Tree = list[Tree]``, where it stands in itself."""

    __slots__ = ("target",)

    def __init__(self, name: str) -> None:
        self.name = name
        self.types = NOTHING
        self.exact = NOTHING
        self.target: Form | None = None
        """The form of the alias, once it is made."""
        self.write = lambda value, places: self.present.write(value, places)
        self.read = lambda data, taken: self.present.read(data, taken)

    @property
    def present(self) -> Form:
        """The form of the alias."""
        assert self.target is not None
        return self.target

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter(() if self.target is None else (self.target,))

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return True

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["class", table.name(self, lambda: ["=", table.term(self.present)])]

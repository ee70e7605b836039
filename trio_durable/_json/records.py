"""Records: attrs classes and dataclasses, read and written through their storage.

The two functions of a class are generated as source, as attrs and dataclasses do for ``__init__``:
one line per field, with the commonest checks in line. Errors need the field that caused them: it
is the one whose line the traceback names, so a call that succeeds pays nothing for it.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any

import attrs

from .defaults import NOT_SHARED, Default
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, FieldsForm, Form, Reader, Taken, Writer
from .layout import Field, Layout, is_attribute_name, layout_of, not_set


class RecordForm(FieldsForm):
    """The form of an attrs class or a dataclass.

    It is made in two steps, since a class may contain itself: first the form, then, in `define`,
    its functions over the forms of its fields.

    Args:
        cls: The class.
        name: The name by which unions and declarations know it.
        former: Names that it had before.
        ignored: A name in ``__dict__`` that isn't state.

    Raises:
        UnsupportedType: The class's storage isn't its fields.
    """

    __slots__ = ("_defaults", "_fields", "_validators", "cls", "ignored", "layout")

    def __init__(
        self,
        cls: type,
        name: str,
        former: tuple[str, ...] = (),
        ignored: str = "",
    ) -> None:
        self.ignored: str = ignored
        self.cls: type = cls
        self.name = name
        self.former = former
        self.types: frozenset[type] = frozenset({cls})
        self.exact = NOTHING
        self.layout: Layout = layout_of(cls, frozenset({ignored}) if ignored else frozenset())
        self.fields: Mapping[str, Form] = {}  # until `define`, since the class may contain itself
        self.keys: Mapping[str, str] = member_names(self.layout.fields)
        self._fields = {field.name: field for field in self.layout.fields}
        self._defaults: dict[str, Default] = {}
        self._validators = [
            (field.name, field.attribute, field.validator)
            for field in self.layout.fields
            if field.validator is not None
        ]
        # Replaced by `define`; a form that contains this one calls it by then.
        self.write: Writer = lambda value, places: self.write(value, places)
        self.read: Reader = lambda data, taken: self.read(data, taken)

    def define(self, fields: Mapping[str, Form]) -> None:
        """Make the functions of the class, over the forms of its fields."""
        self.fields = fields
        self._defaults = {name: Default(self._fields[name], form) for name, form in fields.items()}
        self.write = _Source(self).writer()
        self.read = _Source(self).reader()

    def is_required(self, name: str) -> bool:
        """See `FieldsForm.is_required`."""
        return self._fields[name].is_required

    def build(self, values: Mapping[str, Any], taken: Taken) -> Any:
        """An instance with the values of its fields. A missing one gets its default.

        The class's own code doesn't run, except defaults, their converters, and validators.

        Raises:
            Unfit: A field without a default is missing, or a validator refuses a value.
        """
        layout = self.layout
        instance = layout.new()
        for field in layout.fields:
            if field.name in values:
                value = values[field.name]
            else:
                value = self._defaults[field.name].make(instance, taken)
            layout.set(instance, field.name, value)
        self.validate(instance)
        return instance

    def shared_defaults(self) -> tuple[tuple[str, Any], ...] | None:
        """The values of all fields, if each is immutable and every instance's, as it is."""
        values: list[tuple[str, Any]] = []
        for field in self.layout.fields:
            value = self._defaults[field.name].shared
            if value is NOT_SHARED:
                return None
            values.append((field.name, value))
        return None if self._validators else tuple(values)

    def not_of_class(self, value: object) -> Unfit:
        """The error of a value of another class, also of a subclass, whose fields would be lost."""
        unfit = expected(self.name, value)
        if issubclass(type(value), self.cls):
            name = type(value).__name__
            return Unfit(f"{unfit.problem}; declare `{self.name} | {name}` to store both")
        return unfit

    def validate(self, instance: Any) -> None:
        """Run the validators of the fields.

        Raises:
            Unfit: One refuses its value.
        """
        if self._validators and not attrs.validators.get_disabled():
            for name, attribute, validator in self._validators:
                try:
                    validator(instance, attribute, self.layout.get(instance, name))
                except Exception as error:  # validators may raise anything
                    raise as_unfit(error).within(f".{name}") from error

    @property
    def takes_defaults(self) -> Mapping[str, Default]:
        """The defaults of the fields, by the field's name."""
        return self._defaults

    @property
    def has_validators(self) -> bool:
        """True if a field has a validator."""
        return bool(self._validators)


def member_names(fields: tuple[Field, ...]) -> dict[str, str]:
    """The names of fields in JSON: unmangled, unless two would be the same."""
    plain = {field.name: _unmangled(field.name) for field in fields}
    taken = list(plain.values())
    return {name: key if taken.count(key) == 1 else name for name, key in plain.items()}


def _unmangled(name: str) -> str:
    """``__x`` for ``_Cls__x``."""
    if name.startswith("_") and not name.startswith("__"):
        cls, separator, rest = name[1:].partition("__")
        if cls and separator and rest and not rest.endswith("__"):
            return f"__{rest}"
    return name


def _by_frequency(kind: type) -> int:
    """A number for sorting, which is less for types that values of a union have more often."""
    return [str, int, float, bool, type(None)].index(kind)


class _Source:
    """The source of the two functions of a class.

    Args:
        form: The form of the class, with the forms of its fields.
    """

    def __init__(self, form: RecordForm) -> None:
        self._form = form
        self._layout = form.layout
        self._lines: list[str] = []
        self._fields: dict[int, str] = {}
        """By the number of its line, the field that it converts."""
        self._names: dict[str, Any] = {
            "cls": form.cls,
            "form": form,
            "layout": form.layout,
            "expected": expected,
            "failed": self._failed,
            "new": object.__new__,
            "attributes_of": form.layout.attributes,
        }

    def writer(self) -> Writer:
        form, layout = self._form, self._layout
        self._add("def write_record(value, places):")
        self._add("    if type(value) is not cls:")
        self._add("        raise form.not_of_class(value)")
        if not layout.is_frozen and not form.ignored:
            self._add("    places.append(id(value))")
        self._add("    try:")
        if layout.has_dict:
            plain = "value.__dict__" if layout.reads_plainly else "attributes_of(value)"
            self._add(f"        attributes = {plain}")
            count = len(layout.in_dict)
            condition = f"len(attributes) != {count}"
            if form.ignored:  # a live instance has its context there, at each turn
                condition = f"len(attributes) != {count + 1} or {form.ignored!r} not in attributes"
            self._add(f"        if {condition}:")
            self._add("            layout.check_nothing_else(value)")
        if form.has_validators:
            self._add("        form.validate(value)")
        self._add("        return {")
        for index, (name, part) in enumerate(form.fields.items()):
            self._names[f"f{index}"] = part
            self._names[f"n{index}"] = name
            if name not in layout.slots:
                got = f"attributes[{name!r}]"
            elif layout.reads_plainly and is_attribute_name(name):
                got = f"value.{name}"
            else:
                got = f"layout.get(value, n{index})"
            self._convert(f"            {form.keys[name]!r}: ", got, index, name, part, "write")
        self._add("        }")
        write: Writer = self._compiled("write_record", "write")
        return write

    def reader(self) -> Reader:
        form, layout = self._form, self._layout
        self._add("def read_record(data, taken):")
        self._add("    if type(data) is not dict:")
        self._add("        raise expected('an object with the fields of ' + form.name, data)")
        self._add("    try:")
        for index, name in enumerate(form.fields):
            self._add(f"        d{index} = data[{form.keys[name]!r}]")
        self._add("        pass")
        self._add("    except KeyError:")
        self._add("        return form.read_with(form.readers, data, taken)")
        self._add("    value = layout.new()" if layout.caches_hash else "    value = new(cls)")
        self._add("    try:")
        use_dict = bool(layout.in_dict) and not layout.writes_plainly
        if use_dict:
            self._add("        attributes = attributes_of(value)")
        for index, (name, part) in enumerate(form.fields.items()):
            self._names[f"f{index}"] = part
            slot = layout.slots.get(name)
            start, end = f"        value.{name} = ", ""
            if not layout.writes_plainly or not is_attribute_name(name):
                start = f"        attributes_of(value)[{name!r}] = "
                if use_dict:
                    start = f"        attributes[{name!r}] = "
                if slot is not None:
                    self._names[f"s{index}"] = slot.__set__
                    start, end = f"        s{index}(value, ", ")"
            self._convert(start, f"d{index}", index, name, part, "read", end)
        if form.has_validators:
            self._add("        form.validate(value)")
        self._add("        return value")
        read: Reader = self._compiled("read_record", "read")
        return read

    def _convert(
        self,
        start: str,
        got: str,
        index: int,
        name: str,
        part: Form,
        which: str,
        end: str = "",
    ) -> None:
        """Add the line that converts a field."""
        notes = "places" if which == "write" else "taken"
        call = f"h{index}" if self._is_ready(index, part, which) else f"f{index}.{which}"
        condition = self._is_its_own(part, f"v := {got}", index)
        if condition:
            text = f"(v if {condition} else {call}(v, {notes}))"
        else:
            text = f"{call}({got}, {notes})"
        self._fields[len(self._lines) + 1] = name
        self._add(start + text + (end or ("," if which == "write" else "")))

    def _is_its_own(self, part: Form, value: str, index: int) -> str:
        """A condition under which a value of the part is its own JSON, or nothing."""
        if not part.exact:
            return ""
        first, *others = sorted(part.exact, key=_by_frequency)
        self._names[f"t{index}"] = first
        if not others:
            return f"type({value}) is t{index}"
        self._names[f"o{index}"] = frozenset(others)
        return f"(t := type({value})) is t{index} or t in o{index}"

    def _is_ready(self, index: int, part: Form, which: str) -> bool:
        """True if the part's function is made, and may be called without the way over its form."""
        if isinstance(part, RecordForm) and not part.takes_defaults and part.fields == {}:
            return False
        self._names[f"h{index}"] = getattr(part, which)
        return True

    def _compiled(self, name: str, purpose: str) -> Any:
        self._add("    except RecursionError:")
        self._add("        raise")
        self._add("    except Exception as error:")
        self._add("        raise failed(error) from error")
        source = "\n".join(self._lines) + "\n"
        file = f"<trio_durable {purpose} of {self._form.cls.__qualname__}>"
        exec(compile(source, file, "exec"), self._names)  # noqa: S102  # names are fields'
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        return self._names[name]

    def _failed(self, error: Exception) -> Unfit:
        """``error`` as an `Unfit`, with the field whose line raised it in its path."""
        trace = error.__traceback__
        name = None if trace is None else self._fields.get(trace.tb_lineno)
        if name is None:
            return as_unfit(error)
        is_lookup = isinstance(error, (KeyError, AttributeError))
        if is_lookup and trace is not None and trace.tb_next is None:
            error = not_set()
        return as_unfit(error).within(f".{name}")

    def _add(self, line: str) -> None:
        self._lines.append(line)

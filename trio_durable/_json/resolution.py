"""Resolution of declarations: readers of state that another declaration wrote.

A state records by which declaration it was written. Where that differs from the present one, the
two are resolved as Avro's schemas of writer and reader are
(https://avro.apache.org/docs/1.12.0/specification/#schema-resolution): part by part, and once per
pair. A value is read as the type that wrote it if that is still declared; else by the table of
docs/reference/state.md, "A field's type has changed", of which exactly one rule must apply; else it
is refused. Each rule keeps the value: read and written again, it gives the same JSON.

Two recorded terms aren't declarations:

- ``PLAIN``: plain JSON, whose values mean the same to all readers.
- ``OLD``: data of a release that recorded no declarations. It was written by the present type, or
  a narrower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from .._text import short_repr
from .choices import EnumForm, LiteralForm
from .errors import Unfit, expected
from .forms import PLAIN, FieldsForm, Form, Forward, Reader, Table, Taken, is_plain
from .hooks import HookForm
from .keys import KeyForm
from .mappings import MappingForm
from .models import MODEL_SET, ModelForm
from .plain import ANY
from .readers import (
    canonical,
    each_of,
    in_written_order,
    int_or,
    is_same_json,
    of_declared_keys,
    only_one,
    read_big_as_int,
    reader_of,
    refusing,
    rows,
    without_extra,
)
from .rows import NamedTupleForm
from .scalars import FLOAT, INT, OWN, STR, Scalar
from .sequences import RowForm, SequenceForm, row_converter
from .sets import SetForm
from .terms import ITEMS, OLD, is_plain_term, kind_of, name_of, type_of_data
from .texts import BIG_INT, BYTES, TEXTS
from .unions import OptionalForm, UnionForm, is_tagged

_TEXT_NAMES = frozenset(form.name for form in (*TEXTS.values(), BIG_INT)) - {BYTES.name}
_MAPPINGS = frozenset({"dict", "OrderedDict", "defaultdict", "Counter"})


class Resolution:
    """Readers of data that one declaration wrote.

    Args:
        classes: The table of the declaration's classes, by name.
        is_canonical: Data of the term ``OLD`` was written by a release of the library, so that
            other text than the one that it writes is of another type. Otherwise an upgrade wrote
            it.
        is_entering: Data of the term ``OLD`` comes from outside: it isn't canonical, and a member
            that isn't declared is refused.
    """

    def __init__(
        self,
        classes: Mapping[str, Any],
        *,
        is_canonical: bool = True,
        is_entering: bool = False,
    ) -> None:
        self._classes = classes
        self._is_canonical = is_canonical and not is_entering
        self._is_entering = is_entering
        self._readers: dict[tuple[bytes, Form], list[Reader]] = {}

    def reader(self, term: Any, form: Form) -> Reader:
        """The reader of data of a recorded term, as values of a form.

        It refuses data that no rule reads.
        """
        if isinstance(form, Forward):
            form = form.present
        if type(term) is str or kind_of(term) == "class":
            return self._once(term, form)
        return self._resolved(term, form)

    def _once(self, term: Any, form: Form) -> Reader:
        """The reader of a term without parts, made once, since the form may contain itself."""
        key = (orjson.dumps(term), form)
        known = self._readers.get(key)
        if known is not None:
            return known[0] if known else lambda data, taken: known[0](data, taken)
        made = self._readers[key] = []
        entry: Any = self._classes[term[1]] if kind_of(term) == "class" else None
        if kind_of(entry) == "=":
            made.append(self.reader(entry[1], form))
        else:
            made.append(self._resolved(term, form))
        return made[0]

    def _resolved(self, term: Any, form: Form) -> Reader:
        kind = kind_of(term)
        if isinstance(form, OptionalForm):
            read_one = self.reader(term[1] if kind == "?" else term, form.form)
            return lambda data, taken: None if data is None else read_one(data, taken)
        if kind == "?":
            read_some, read_none = self.reader(term[1], form), self.reader(PLAIN, form)
            return lambda data, taken: (read_none if data is None else read_some)(data, taken)
        if kind == "|":
            return self._from_union(term, form)
        if isinstance(form, UnionForm):
            if term == PLAIN:
                return self._plain_into_union(form)
            return self._old_union(form) if term == OLD else self._into_union(term, form)
        return self._single(term, form) or refusing(term, form)

    # --- unions ----------------------------------------------------------------------------------

    def _from_union(self, term: Any, form: Form) -> Reader:
        bare = {type_of_data(each): self.reader(each, form) for each in term[1]}
        tagged = {self._tag(each): self.reader(each, form) for each in term[2:]}
        read_plain = self.reader(PLAIN, form)

        def read_member(data: Any, taken: Taken) -> Any:
            if is_tagged(data):
                read = tagged.get(data["$type"])
                if read is None and data["$type"] == "dict":
                    read = bare.get(dict, read_plain)
                if read is None:
                    raise Unfit(f"{short_repr(data['$type'])} was no part of the union")
                return read(data["value"], taken)
            return bare.get(type(data), read_plain)(data, taken)

        return read_member

    def _tag(self, term: Any) -> str:
        if kind_of(term) == "class":
            entry = self._classes[term[1]]
            return "dict" if kind_of(entry) == "TypedDict" else name_of(term)
        return name_of(term)

    def _into_union(self, term: Any, form: UnionForm) -> Reader:
        others = only_one(
            form, [read for member in form.members() if (read := self._single(term, member))]
        )
        same = next((member for member in form.members() if self._is_same(term, member)), None)
        if same is None:
            return others
        read_same = self.reader(term, same)

        def read_recorded(data: Any, taken: Taken) -> Any:
            try:
                return read_same(data, taken)
            except Unfit:
                # Of plain parts it isn't recorded which ones: list[int] and list[str] look alike.
                return others(data, taken)

        return read_recorded

    def _plain_into_union(self, form: UnionForm) -> Reader:
        direct = [member for member in form.members() if is_plain(member)]
        containers = [each for each in direct if not isinstance(each, (Scalar, LiteralForm))]
        others = only_one(
            form, [read for member in form.members() if (read := self._single(PLAIN, member))]
        )

        def read_plain(data: Any, taken: Taken) -> Any:
            bare = form.by_data.get(type(data))
            for member in containers if bare is None or bare not in direct else (bare,):
                try:
                    return member.read(data, taken)
                except Unfit:
                    continue
            return others(data, taken)

        return read_plain

    def _old_union(self, form: UnionForm) -> Reader:
        readers = {member: self.reader(OLD, member) for member in form.members()}

        def written_by(member: Form, read: Reader) -> Reader:
            def read_if_same(data: Any, taken: Taken) -> Any:
                value = read(data, taken)
                if member is BIG_INT and type(data) is int:
                    return value  # the field may have been an int
                if not is_same_json(member.write(value, []), data):
                    raise Unfit("it would be written otherwise")
                return value

            return read_if_same

        if self._is_entering:
            any_of = only_one(form, list(readers.values()), "tag it with its $type")
        else:
            any_of = only_one(form, [written_by(*pair) for pair in readers.items()])

        def read_old(data: Any, taken: Taken) -> Any:
            try:
                member, inner = form.member_of(data)
            except Unfit:
                return any_of(data, taken)
            if inner is not data:
                return readers[member](inner, taken)
            try:
                return readers[member](data, taken)
            except Unfit:
                return any_of(data, taken)

        return read_old

    # --- one type as one type --------------------------------------------------------------------

    def _is_same(self, term: Any, form: Form) -> bool:
        """True if the recorded type is that of the form, whatever has changed inside of it."""
        if isinstance(form, Forward):
            return self._is_same(term, form.present)
        if isinstance(form, KeyForm):
            return bool(term == Table().term(form))
        kind = kind_of(term)
        if kind == "class":
            names = (form.name, *getattr(form, "former", ()))
            return isinstance(form, (FieldsForm, NamedTupleForm)) and name_of(term) in names
        if kind == "enum":
            return isinstance(form, EnumForm) and form.name == term[1]
        if kind == "hook":
            return isinstance(form, HookForm) and term[1] in (form.name, *form.former)
        if kind == "|":
            return isinstance(form, UnionForm) and self._has_same_members(term, form)
        if kind != term:
            own: Any = form.term(Table())
            return kind_of(own) == kind and self._has_same_parts(term, own, form)
        return isinstance(form, Scalar) and form.name == term

    def _has_same_parts(self, term: Any, own: Any, form: Form) -> bool:
        if len(own) != len(term) or ("..." in own) is not ("..." in term):
            return False
        parts = [each for each in term[1:] if each != "..."]
        return all(
            is_plain(part) if each == PLAIN else self._is_same(each, part)
            for each, part in zip(parts, form.parts(), strict=False)
        )

    def _has_same_members(self, term: Any, form: UnionForm) -> bool:
        _, bare, *tagged = term
        own_bare = [member for member in form.bare if not is_plain(member)]
        own_tagged = [member for _, member in sorted(form.tagged.items())]
        return (
            len(bare) == len(own_bare)
            and len(tagged) == len(own_tagged)
            and all(map(self._is_same, (*bare, *tagged), (*own_bare, *own_tagged)))
        )

    def _single(self, term: Any, form: Form) -> Reader | None:
        """The reader of one recorded type as one present type; None if no rule applies."""
        if isinstance(form, (OptionalForm, UnionForm, Forward)):
            return self.reader(term, form)
        if form is ANY:
            return form.read if term == OLD or is_plain_term(term) else None
        if term == PLAIN:
            return self._plain(form)
        if term == OLD:
            return self._old(form)
        kind = kind_of(term)
        if kind == "class":
            kind = kind_of(self._classes[term[1]])
            if kind == "NamedTuple":
                return self._row(term, form)
            return self._fields(term, form)
        if kind == "enum":
            if form is FLOAT:
                return reader_of(form, lambda data: type(data) is float)
            own = isinstance(form, (EnumForm, LiteralForm)) or form in OWN.values()
            return form.read if own else None
        if kind == "hook":
            return form.read if self._is_same(term, form) else None
        if kind in ITEMS:
            return self._items(term, form)
        if kind in _MAPPINGS:
            return self._mapping(term, form)
        return self._scalar(term, form)

    def _scalar(self, name: str, form: Form) -> Reader | None:
        if form.name == name and not isinstance(form, (EnumForm, FieldsForm, HookForm)):
            return form.read
        if form is STR and name in _TEXT_NAMES:
            return form.read
        if form is INT and name == BIG_INT.name:
            return read_big_as_int
        return None

    def _plain(self, form: Form) -> Reader | None:
        if form in OWN.values() or isinstance(form, LiteralForm):
            return form.read
        if isinstance(form, EnumForm):
            return reader_of(form, lambda data: type(data) is not list)
        if form is BIG_INT:
            return int_or(canonical(form))
        if isinstance(form, Scalar):
            return canonical(form) if form.is_text and form is not BYTES else None
        if isinstance(form, (SequenceForm, RowForm, SetForm, NamedTupleForm)):
            return self._items(["list", PLAIN], form)
        if isinstance(form, (MappingForm, FieldsForm)):
            return self._mapping(["dict", PLAIN, PLAIN], form)
        return None

    def _old(self, form: Form) -> Reader | None:
        if isinstance(form, Scalar):
            read = canonical(form) if form.is_text and self._is_canonical else form.read
            # An int was perhaps declared as int, until BigInt was needed.
            return int_or(read) if form is BIG_INT else read
        if isinstance(form, NamedTupleForm):
            readers = {
                name: self.reader(OLD, item)
                for name, item in zip(form.names, form.items, strict=True)
            }
            return lambda data, taken: form.read_with(readers, rows(data, form), taken)
        if isinstance(form, (SequenceForm, RowForm, SetForm)):
            is_deque = form.name == "deque"  # an upgrade may move one with a maxlen
            return self._items(["deque" if is_deque else "list", OLD], form)
        if isinstance(form, MappingForm):
            return self._mapping(["dict", OLD, OLD], form)
        if isinstance(form, FieldsForm):
            return self._old_fields(form)
        return form.read

    def _old_fields(self, form: FieldsForm) -> Reader:
        if self._is_entering:
            return self._entering_fields(form)
        readers = {name: self.reader(OLD, part) for name, part in form.fields.items()}
        known = {*form.fields, *form.keys.values()}
        names = (form.name, *form.former)

        def read_old(data: Any, taken: Taken) -> Any:
            if is_tagged(data) and not known.issuperset(data):
                # It was written by a union that had this class as a member, or another one.
                if data["$type"] not in names:
                    raise Unfit(f"{short_repr(data['$type'])} isn't {form.name}; write an @upgrade")
                data = data["value"]
            if type(data) is dict and data and known.isdisjoint(data):
                raise Unfit(
                    f"{short_repr(data)} has no field of {form.name}, so all of it would be lost; "
                    "write an @upgrade"
                )
            return form.read_with(readers, data, taken)

        return read_old

    def _entering_fields(self, form: FieldsForm) -> Reader:
        validated: Callable[[Any], Any] | None = getattr(form, "validated", None)
        if validated is not None:  # by the library of the model
            return lambda data, taken: validated(data)
        return of_declared_keys(
            form, {name: self.reader(OLD, part) for name, part in form.fields.items()}
        )

    # --- sequences and sets ----------------------------------------------------------------------

    def _items(self, term: Any, form: Form) -> Reader | None:
        kind, *terms = term
        if kind == "tuple" and terms[-1:] != ["..."]:
            return self._row_items(terms, form)
        item = terms[0]
        if isinstance(form, SequenceForm):
            read_items = each_of(self.reader(item, form.item))
            if kind == "deque" and form.kind.__name__ == kind:
                return form.reader(read_items)
            return lambda data, taken: form.made(read_items(data, taken))
        if isinstance(form, SetForm):
            read_set = form.reader(each_of(self.reader(item, form.item)))
            if kind in ("set", "frozenset") or (item == OLD and not self._is_canonical):
                return read_set
            return in_written_order(read_set)
        if isinstance(form, RowForm):
            return self._row_items([item] * len(form.items), form)
        if isinstance(form, NamedTupleForm):
            return self._row_items([item] * len(form.items), form)
        return None

    def _row(self, term: Any, form: Form) -> Reader | None:
        """The reader of a recorded NamedTuple."""
        _, *fields = self._classes[term[1]]
        if isinstance(form, NamedTupleForm) and self._is_same(term, form):
            names = [name for name, _ in fields]
            if list(form.names[: len(names)]) != names:
                return None
            forms = dict(zip(form.names, form.items, strict=True))
            readers = {name: self.reader(each, forms[name]) for name, each in fields}
            return lambda data, taken: form.read_with(readers, rows(data, form), taken)
        return self._row_items([each for _, each in fields], form)

    def _row_items(self, terms: Sequence[Any], form: Form) -> Reader | None:
        """The reader of a row, whose items have a type each."""
        if isinstance(form, (RowForm, NamedTupleForm)):
            if len(form.items) != len(terms):
                return None
            forms: Iterable[Form] = form.items
        elif isinstance(form, SequenceForm):
            forms = [form.item] * len(terms)
        else:
            return None
        convert = row_converter([self.reader(*pair) for pair in zip(terms, forms, strict=True)])

        def read_row(data: Any, taken: Taken) -> Any:
            if type(data) is not list:
                raise expected("list", data)
            return form.made(convert(data, taken))

        return read_row

    # --- mappings and classes --------------------------------------------------------------------

    def _mapping(self, term: Any, form: Form) -> Reader | None:
        kind, key = term[:2]
        value = PLAIN if kind == "Counter" else term[2]
        if isinstance(form, MappingForm):
            read_key = self._key(key, form.key)
            return (
                None if read_key is None else form.reader(read_key, self.reader(value, form.value))
            )
        if isinstance(form, FieldsForm) and key == PLAIN:
            readers = {name: self.reader(value, part) for name, part in form.fields.items()}
            return of_declared_keys(form, readers)
        return None

    def _key(self, term: Any, form: KeyForm) -> Reader | None:
        if term == OLD:
            return canonical(form) if self._is_canonical else form.read
        if term == Table().term(form):
            return form.read
        inner = form.form
        if term == PLAIN:
            is_text = isinstance(inner, Scalar) and inner.is_text and inner is not BYTES
            return canonical(form) if is_text or inner is INT or form.types == {str} else None
        if inner is STR and term in (INT.name, *_TEXT_NAMES):
            return form.read
        return None

    def _fields(self, term: Any, form: Form) -> Reader | None:
        """The reader of a recorded class or TypedDict."""
        read = self._members(term, form)
        is_of_model = MODEL_SET in self._classes[term[1]]
        if read is None or not is_of_model or isinstance(form, ModelForm):
            return read
        return without_extra(read)

    def _members(self, term: Any, form: Form) -> Reader | None:
        entry = self._classes[term[1]]
        terms: Mapping[str, Any] = entry[1] if kind_of(entry) == "TypedDict" else entry
        extra = entry[2] if kind_of(entry) == "TypedDict" and len(entry) > 2 else PLAIN
        if isinstance(form, FieldsForm):
            readers = {
                name: self.reader(terms.get(form.keys[name], extra), part)
                for name, part in form.fields.items()
            }
            if self._is_same(term, form):
                return partial(form.read_with, readers)  # which takes no frame of its own
            return of_declared_keys(form, readers)
        if isinstance(form, MappingForm):
            if form.key.types != {str} or form.key.form is not STR:
                return None
            by_key = {key: self.reader(each, form.value) for key, each in terms.items()}
            read_other = self.reader(extra, form.value)

            def read_fields(data: Any, taken: Taken) -> Any:
                if type(data) is not dict:
                    raise expected("an object", data)
                return form.made(
                    {key: by_key.get(key, read_other)(item, taken) for key, item in data.items()}
                )

            return read_fields
        return None

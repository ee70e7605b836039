"""Unions: the member that a value is of is known from its exact type, and from JSON's.

- Members that JSON has itself are *bare*: the kind of JSON distinguishes their values.
- Values of all other members are *tagged*: ``{"$type": name, "value": …}``.
- With None alone a member is bare: null is None.

Reading never guesses. Data that no member writes is refused here; `resolution` reads the data of
other declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._text import short_repr
from .choices import EnumForm, LiteralForm
from .errors import Unfit, UnsupportedType
from .forms import NOTHING, Form, Places, Table, Taken, Term, is_plain
from .mappings import MappingForm
from .plain import ANY
from .scalars import BOOL, FLOAT, INT, NONE, OWN, STR, Scalar

_BASES: dict[type, tuple[Scalar, ...]] = {
    bool: (BOOL, INT),
    int: (INT, FLOAT),
    float: (FLOAT,),
    str: (STR,),
    type(None): (NONE,),
}
"""The forms that hold the values of a type, by the type; the first one that is a member counts."""


class OptionalForm(Form):
    """The form of a type or None.

    Args:
        form: The form of the type, whose values are never written as null.
    """

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        self.form = form
        self.name = f"{form.name} | None"
        self.types = form.types | NONE.types
        self.exact = form.exact | NONE.exact if form.exact else NOTHING
        self.write = lambda value, places: None if value is None else form.write(value, places)
        self.read = lambda data, taken: None if data is None else form.read(data, taken)

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter((self.form,))

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return True

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["?", table.term(self.form)]


class UnionForm(Form):
    """The form of a union of several members besides None.

    Args:
        bare: The members whose values aren't tagged: JSON's own types, literals of them, and at
            most one list and one dict.
        tagged: The other members.

    Raises:
        UnsupportedType: The members can't be told apart.
    """

    __slots__ = ("bare", "by_data", "tagged")

    def __init__(self, bare: Iterable[Form], tagged: Iterable[Form]) -> None:
        self.bare = tuple(bare)
        self.tagged = _by_tag(tagged)
        members = (*self.bare, *self.tagged.values())
        self.name = " | ".join(form.name for form in members)
        self.types = NOTHING.union(*(form.types for form in members))
        self.exact = NOTHING
        if not self.tagged and all(form.exact for form in self.bare):
            self.exact = NOTHING.union(*(form.exact for form in self.bare))
        self.by_data: Mapping[type, Form] = _by_data(self.bare)
        """The bare member that reads data of a type, by the type."""
        writers: dict[type, tuple[Form, str | None]] = {}
        for kind, form in self.by_data.items():
            if kind in _BASES:
                writers[kind] = (form, None)
            else:
                writers.update((each, (form, None)) for each in form.types)
        for tag, form in self.tagged.items():
            for kind in form.types:
                other = writers.setdefault(kind, (form, tag))[0]
                if other is not form:
                    raise UnsupportedType(
                        f"{other.name} and {form.name} can't be told apart in a union, since "
                        f"values of both are of type {kind.__name__}; declare one of them"
                    )
        bare_dict = self.by_data.get(dict)

        def write_union(value: Any, places: Places) -> Any:
            found = writers.get(type(value))
            if found is None:
                raise Unfit(
                    f"{short_repr(value)} is of type {type(value).__name__}, which is not part of "
                    f"{self.name}"
                )
            form, tag = found
            data = form.write(value, places)
            if tag is not None:
                return {"$type": tag, "value": data}
            if bare_dict is not None and is_tagged(data):
                return {"$type": bare_dict.tag, "value": data}
            return data

        def read_union(data: Any, taken: Taken) -> Any:
            form, data = self.member_of(data)
            return form.read(data, taken)

        self.write, self.read = write_union, read_union

    def member_of(self, data: Any) -> tuple[Form, Any]:
        """The member that wrote ``data``, and its own data without a tag.

        Raises:
            Unfit: No member did.
        """
        if is_tagged(data):
            tag = data["$type"]
            form = self.tagged.get(tag)
            if form is None:
                form = self.by_data.get(dict)
                if form is None or form.tag != tag:
                    raise Unfit(f"{short_repr(tag)} is not part of {self.name}")
            return form, data["value"]
        form = self.by_data.get(type(data))
        if form is None:
            raise Unfit(f"{short_repr(data)} is not part of {self.name}")
        return form, data

    def members(self) -> Iterator[Form]:
        """All members."""
        yield from self.bare
        yield from self.tagged.values()

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return self.members()

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return not self.tagged

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        bare = {str(term): term for form in self.bare if (term := table.term(form)) != "json"}
        # Of plain members as well, since data has their tag.
        tagged = [form.term(table) for _, form in sorted(self.tagged.items())]
        return ["|", list(bare.values()), *tagged]


def is_tagged(data: Any) -> bool:
    """True for the data of a tagged member."""
    return (
        type(data) is dict and len(data) == 2 and "value" in data and type(data.get("$type")) is str
    )


def union_of(forms: Sequence[Form]) -> Form:
    """The form of a union of types.

    Raises:
        UnsupportedType: The members can't be told apart.
    """
    members = _merged(forms)
    if ANY in members:
        swallowed = [form.name for form in members if not is_plain(form)]
        if swallowed:
            raise UnsupportedType(
                f"Any swallows {', '.join(swallowed)}, the other members of the union; declare one "
                "of them"
            )
        return ANY
    others = [form for form in members if form is not NONE]
    if len(others) < 2:
        return members[0] if len(members) == 1 else _optional(others[0])
    others = _merged([part for form in others for part in _flattened(form)])
    if NONE in members:
        others = _merged([*others, NONE])
    is_bare = [isinstance(form, LiteralForm) or form in OWN.values() for form in others]
    return UnionForm(
        (form for form, bare in zip(others, is_bare, strict=True) if bare),
        (form for form, bare in zip(others, is_bare, strict=True) if not bare),
    )


def _optional(form: Form) -> Form:
    if form is ANY or NONE.types <= form.types:
        return form
    if isinstance(form, EnumForm) and None in form.choices():
        raise UnsupportedType(
            f"a member of {form.name} has the value None, which can't be told from None itself; "
            "give it another value"
        )
    return OptionalForm(form)


def _flattened(form: Form) -> Iterator[Form]:
    """The members of a union in a union, which another name may hide."""
    if isinstance(form, OptionalForm):
        yield from _flattened(form.form)
        yield NONE
    elif isinstance(form, UnionForm):
        for member in form.members():
            yield from _flattened(member)
    else:
        yield form


def _merged(forms: Iterable[Form]) -> list[Form]:
    """The members without repetitions: a literal is part of its type, and of an enum's members."""
    members = list(dict.fromkeys(forms))
    literals = [form for form in members if isinstance(form, LiteralForm)]
    if literals:
        choices = [
            choice
            for form in literals
            for choice in form.choices()
            if not any(base in members for base in _BASES[type(choice)])
        ]
        members = [form for form in members if form not in literals]
        if choices:
            members.append(LiteralForm({(type(each), each): each for each in choices}.values()))
    enums: dict[type, EnumForm] = {}
    for form in members:
        if isinstance(form, EnumForm):
            other = enums.get(form.cls)
            enums[form.cls] = form if other is None else other.merged(form)
    merged = [enums[form.cls] if isinstance(form, EnumForm) else form for form in members]
    return list(dict.fromkeys(merged))


def _by_tag(forms: Iterable[Form]) -> dict[str, Form]:
    tagged: dict[str, Form] = {}
    for form in forms:
        other = tagged.setdefault(form.tag, form)
        if other is not form:
            same = "are written alike" if form.name == other.name else "have one name"
            raise UnsupportedType(
                f"{other.name} and {form.name} {same}, {form.tag!r}, by which values in a union "
                "are told apart; declare one of them, or give a class a name with stored_as()"
            )
    return tagged


def _by_data(bare: Iterable[Form]) -> dict[type, Form]:
    members = list(bare)
    found: dict[type, Form] = {}
    for kind, bases in _BASES.items():
        for base in bases:
            if base in members:
                found.setdefault(kind, base)
    for form in members:
        if isinstance(form, LiteralForm):
            found.update((kind, form) for kind in form.types)
        elif form not in OWN.values():
            found[dict if isinstance(form, MappingForm) else list] = form
    return found

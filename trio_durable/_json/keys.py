"""Keys of dicts, which are text in JSON.

A key that is written as text is its own JSON key. Of any other, the JSON key is the JSON that its
form writes: ``1``, ``true``, ``["a",1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from .choices import EnumForm, LiteralForm
from .errors import Unfit, UnsupportedType, expected
from .forms import NOTHING, Form, Places, Reader, Table, Taken, Term, Writer, is_plain
from .plain import AnyForm
from .scalars import BOOL, INT, STR, Scalar
from .sequences import RowForm, SequenceForm


class KeyForm(Form):
    """The form of a dict's keys, over the form of their type.

    Args:
        form: The form of the keys' type.

    Raises:
        UnsupportedType: The keys of the type can't be told from their text.
    """

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        self.form = form = STR if isinstance(form, AnyForm) else form
        self.name = form.name
        self.types = form.types
        self.exact = form.exact if form is STR else NOTHING
        self.write, self.read = _functions(form)

    def is_plain_by_itself(self) -> bool:
        """See `Form.is_plain_by_itself`."""
        return is_plain(self.form) and self.form.types == {str}

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        form = self.form
        if isinstance(form, LiteralForm):
            return next((own.name for own in (INT, BOOL) if own.types >= form.types), "Literal")
        return form.term(table)


def _functions(form: Form) -> tuple[Writer, Reader]:
    if form is STR or (isinstance(form, Scalar) and form.is_text):
        return form.write, form.read
    if form is INT:
        return _write_int, _read_int
    if isinstance(form, (EnumForm, LiteralForm)):
        return _choice_functions(form)
    if form is BOOL or _is_immutable_sequence(form):
        return _json_writer(form), _json_reader(form)
    raise UnsupportedType(
        f"{form.name} can't be the key of a dict in JSON; use str, int, bool, a type that is "
        "written as text, an enum, a Literal or a tuple of these"
    )


def _is_immutable_sequence(form: Form) -> bool:
    if isinstance(form, RowForm):
        return all(map(_may_be_key, form.parts()))
    return isinstance(form, SequenceForm) and form.kind is tuple and _may_be_key(form.item)


def _may_be_key(form: Form) -> bool:
    if isinstance(form, Scalar):
        return form.is_text or form in (STR, INT, BOOL)
    return isinstance(form, (EnumForm, LiteralForm)) or _is_immutable_sequence(form)


def _write_int(value: Any, _: object) -> str:
    if type(value) is not int:  # True and 1 would be one key
        raise expected("int", value)
    return str(value)


def _read_int(text: str, _: object) -> int:
    try:
        value = int(text)
    except ValueError:
        raise Unfit(f"{text!r} is not an int") from None
    if str(value) != text:  # "01" and "1" would be one key
        raise Unfit(f"{text!r} is not how an int is written")
    return value


def _json_writer(form: Form) -> Writer:
    def write_key(value: Any, places: Places) -> str:
        try:
            return orjson.dumps(form.write(value, places)).decode()
        except orjson.JSONEncodeError as error:
            raise Unfit(str(error)) from None

    return write_key


def _json_reader(form: Form) -> Reader:
    def read_key(text: str, taken: Taken) -> Any:
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise Unfit(f"{text!r} is not the JSON of a key") from None
        if orjson.dumps(data).decode() != text:
            raise Unfit(f"{text!r} is not how a key is written")
        return form.read(data, taken)

    return read_key


def _choice_functions(form: EnumForm | LiteralForm) -> tuple[Writer, Reader]:
    by_text: dict[str, Any] = {}
    for data in form.choices():
        text = _text(data)
        if text in by_text:
            raise UnsupportedType(f"two members of {form.name} would be the same JSON key")
        by_text[text] = data
    read_other: Callable[[str, Taken], Any] | None = None
    if isinstance(form, EnumForm) and form.is_flag:
        read_other = _read_int

    def read_choice(text: str, taken: Taken) -> Any:
        if text in by_text:
            return form.read(by_text[text], taken)
        if read_other is None:
            raise Unfit(f"{text!r} is not a value of {form.name}")
        return form.read(read_other(text, taken), taken)

    return lambda value, places: _text(form.write(value, places)), read_choice


def _text(data: Any) -> str:
    return data if type(data) is str else orjson.dumps(data).decode()

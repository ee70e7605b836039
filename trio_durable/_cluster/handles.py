"""Forms of handles: a handle is sent as the object's address, and arrives as a handle there.

Handles are the runtime's, so the form knows them by a protocol alone. In a union they stand beside
any other type, under a tag of their own.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Protocol, Union, get_args, get_origin

import attrs

from .._json.errors import Unfit, expected
from .._json.forms import NOTHING, Form, Places, Table, Taken, Term
from .._json.lookup import Forms
from .._json.scalars import NONE, Scalar
from .._json.unions import OptionalForm, is_tagged, union_of

_TAG = "#handle"
"""The tag of a handle in a union. Names of classes don't contain ``#``."""


@attrs.frozen
class Reference:
    """The object that a handle leads to, and the timeout of its calls."""

    cls: type
    """The class of the object."""
    type_name: str
    address: str
    timeout: float | None


class Handles(Protocol):
    """The handles of a runtime."""

    def is_durable(self, tp: object) -> bool:
        """True for a class of durable objects."""
        ...

    def reference(self, value: object) -> Reference | None:
        """The object of a handle; None if ``value`` is no handle.

        Raises:
            Unfit: It is a handle of another runtime.
        """
        ...

    def handle(self, type_name: str, address: str, timeout: float | None) -> object:
        """A handle of this runtime.

        Raises:
            DurableError: It can have none of that type.
        """
        ...


class HandleForms:
    """Forms of the types that handles have in annotations, to be asked before all others.

    Args:
        forms: The forms of all other types.
        handles: The handles of the runtime.
    """

    def __init__(self, forms: Forms, handles: Handles) -> None:
        self._handles = handles
        self.forms = forms.with_custom(self._form)
        """The forms of all types."""

    def _form(self, tp: Any) -> Form | None:
        if get_origin(tp) in (Union, types.UnionType):
            return self._union([self.forms.of(arg) for arg in get_args(tp)])
        return HandleForm((tp,), self._handles) if self._handles.is_durable(tp) else None

    def _union(self, forms: list[Form]) -> Form | None:
        members = list(dict.fromkeys(part for form in forms for part in _flattened(form)))
        handles = [form for form in members if isinstance(form, HandleForm)]
        if not handles:
            return None
        others = [form for form in members if form not in handles]
        classes = tuple(dict.fromkeys(cls for form in handles for cls in form.classes))
        handle = HandleForm(classes, self._handles)
        if not others:
            return handle
        return OptionalForm(handle) if others == [NONE] else _HandleOr(handle, union_of(others))


def _flattened(form: Form) -> Iterator[Form]:
    """The members of a form that has handles among them; any other form by itself."""
    if isinstance(form, _HandleOr):
        yield form.handle
        yield form.other
    elif isinstance(form, OptionalForm) and isinstance(form.form, HandleForm):
        yield form.form
        yield NONE
    else:
        yield form


class HandleForm(Scalar):
    """The form of a handle.

    Args:
        classes: The classes of durable objects whose handles are accepted, subclasses included.
        handles: The handles of the runtime.
    """

    __slots__ = ("_handles", "classes")

    def __init__(self, classes: tuple[type, ...], handles: Handles) -> None:
        self.classes = classes
        self._handles = handles
        name = f"handle of {' or '.join(cls.__name__ for cls in classes)}"
        super().__init__(name, NOTHING, self._write, self._read)

    def is_handle(self, value: object) -> bool:
        """True if ``value`` is a handle, whatever its class."""
        return self._handles.reference(value) is not None

    def _write(self, value: Any, _: Places) -> Any:
        reference = self._handles.reference(value)
        if reference is None:
            raise expected(self.name, value)
        self._check(reference)
        return [reference.type_name, reference.address, reference.timeout]

    def _read(self, data: Any, _: Taken) -> Any:
        match data:
            case [str() as type_name, str() as address, float() | int() | None as timeout]:
                handle = self._handles.handle(type_name, address, timeout)
            case _:
                raise expected(self.name, data)
        reference = self._handles.reference(handle)
        assert reference is not None
        self._check(reference)
        return handle

    def _check(self, reference: Reference) -> None:
        if not issubclass(reference.cls, self.classes):
            raise Unfit(f"it is a handle of {reference.type_name}, not a {self.name}")


class _HandleOr(Form):
    """The form of a union of handles and other types.

    Args:
        handle: The form of the handles.
        other: The form of all other members.
    """

    __slots__ = ("handle", "other")

    def __init__(self, handle: HandleForm, other: Form) -> None:
        self.handle = handle
        self.other = other
        self.name = f"{handle.name} | {other.name}"
        self.types = self.exact = NOTHING
        self.write, self.read = self._write, self._read

    def parts(self) -> Iterator[Form]:
        """See `Form.parts`."""
        return iter((self.handle, self.other))

    def term(self, table: Table) -> Term:
        """See `Form.term`."""
        return ["|", [table.term(self.other)], self.handle.name]

    def _write(self, value: Any, places: Places) -> Any:
        if self.handle.is_handle(value):
            return {"$type": _TAG, "value": self.handle.write(value, places)}
        data = self.other.write(value, places)
        if is_tagged(data) and data["$type"] == _TAG:
            raise Unfit(f"an object with the $type {_TAG} would be read as a handle")
        return data

    def _read(self, data: Any, taken: Taken) -> Any:
        if is_tagged(data) and data["$type"] == _TAG:
            return self.handle.read(data["value"], taken)
        return self.other.read(data, taken)

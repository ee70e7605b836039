"""Parameters of a handler: the form of each, and the check that a call's arguments fit them.

A parameter without an annotation is one of ``Any``, whose values are plain JSON. So is a type
variable of the handler's own, unless it has a bound.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Collection, KeysView, Mapping
from typing import Any, Never, NoReturn, TypeVar, Union, get_args, get_origin

import attrs

from .._activations.object_type import ObjectType
from .._declarations.parameter_types import parameter_types
from .._declarations.records import HandlerDefinition
from .._errors import DefinitionError
from .._json.annotations import free_variables, substituted
from .._json.errors import UnsupportedType
from .._json.forms import Form
from .._json.lookup import Forms
from .._json.mappings import TypedDictForm
from .._json.namespaces import UnresolvedName
from .._json.plain import ANY
from .declaration import ARGS, KWARGS, RESULT, Declaration


class Mismatch(TypeError):
    """Arguments that the handler doesn't take."""


def _fewest(parameters: Parameters) -> int:
    names, required = parameters.names, parameters.required
    if not required.issubset(names):
        return sys.maxsize  # it takes keywords
    return 1 + max((names.index(name) for name in required), default=-1)


@attrs.frozen(eq=False)
class Parameters:
    """The parameters of a handler."""

    signature: inspect.Signature
    positional: Mapping[str, Form]
    """The parameters that take a positional argument, in order."""
    named: Mapping[str, Form]
    """The parameters that take a keyword."""
    args: Form | None
    """The form of each item of ``*args``."""
    kwargs: Form | None
    """The form of each value of ``**kwargs``."""
    required: frozenset[str]
    """The names of the parameters without a default."""
    names: tuple[str, ...]
    """The names of the positional parameters."""
    fewest: int = attrs.field(init=False, default=attrs.Factory(_fewest, takes_self=True))
    """With so many positional arguments none that is required is missing."""

    def check(self, count: int, keywords: KeysView[str]) -> None:
        """Check that a call's arguments are those of the handler.

        Args:
            count: The number of positional arguments.
            keywords: The names of the others.

        Raises:
            Mismatch: One is missing, or there is one too many.
        """
        if not keywords and self.fewest <= count <= len(self.names):
            return  # most calls
        given = self.names[:count]
        by_name = keywords & self.named.keys()
        if (
            (count <= len(self.names) or self.args is not None)
            and (len(by_name) == len(keywords) or self.kwargs is not None)
            and by_name.isdisjoint(given)
            and self.required.issubset((*given, *by_name))
        ):
            return
        raise Mismatch(f"{self._mismatch(count, keywords)}; it takes {self.signature}")

    def _mismatch(self, count: int, keywords: Collection[str]) -> str:
        try:
            self.signature.bind(*[None] * count, **dict.fromkeys(keywords))
        except TypeError as error:
            return str(error)
        # Python 3.13 takes a keyword of that name for one of ``**kwargs``, and misses no argument.
        for name in self.names[count:]:
            if name in self.required and name not in self.named:
                return f"missing a required positional-only argument: {name!r}"
        return "the arguments don't fit"

    def forms(self) -> dict[str, Form]:
        """All forms, by their names in a declaration."""
        forms = {_declared(name, self.named): form for name, form in self.positional.items()}
        forms |= self.named
        if self.args is not None:
            forms[ARGS] = self.args
        if self.kwargs is not None:
            forms[KWARGS] = self.kwargs
        return forms

    def declared_names(self) -> list[str]:
        """The names of the positional parameters in a declaration."""
        return [_declared(name, self.named) for name in self.names]

    def declaration(self) -> Declaration:
        """The declaration of the parameters."""
        return Declaration(self.declared_names(), self.forms())


def _declared(name: str, named: Collection[str]) -> str:
    return name if name in named else f"/{name}"


def handler_forms(
    object_type: ObjectType, forms: Forms, handler: HandlerDefinition
) -> tuple[Parameters, Form]:
    """The parameters of a handler, and the form of its result.

    Args:
        object_type: The type of the object.
        forms: The forms of the types.
        handler: The handler.

    Raises:
        DefinitionError: Values of a parameter or the result can't be sent to another process, or a
            name in the annotation isn't defined.
    """
    types = parameter_types(object_type.cls, handler.name, handler.function)
    annotations = inspect.get_annotations(handler.function)

    def form_of(name: str) -> Form:
        if name not in annotations:
            return ANY
        try:
            if name not in types:
                raise UnsupportedType(
                    f"the annotation {annotations[name]!r} can't be evaluated; define or import "
                    "its names at module level, outside `if TYPE_CHECKING`"
                )
            return forms.of(_bound(types[name]))
        except (UnsupportedType, UnresolvedName) as error:
            where = "its result" if name == RESULT else f"its parameter {name}"
            raise DefinitionError(
                object_type.cls.__qualname__,
                handler.name,
                f"{where} can't be sent to another process of the cluster: {error}",
            ) from error

    return _parameters(handler.signature, form_of, types), form_of(RESULT)


def _parameters(
    signature: inspect.Signature, form_of: Callable[[str], Form], types: Mapping[str, Any]
) -> Parameters:
    positional: dict[str, Form] = {}
    named: dict[str, Form] = {}
    args = kwargs = None
    required: set[str] = set()
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            args = form_of(name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            form = form_of(name)
            if _is_unpacked(types.get(name)) and isinstance(form, TypedDictForm):
                named |= form.fields
            else:
                kwargs = form
        else:
            form = form_of(name)
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional[name] = form
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                named[name] = form
            if parameter.default is parameter.empty:
                required.add(name)
    return Parameters(
        signature, positional, named, args, kwargs, frozenset(required), tuple(positional)
    )


def _bound(tp: Any) -> Any:
    """A type without type variables of the handler's own, and without the mark of ``**kwargs``."""
    if tp is Never or tp is NoReturn:
        return type(None)  # it always raises
    if _is_unpacked(tp):
        tp = get_args(tp)[0]
    return substituted(tp, {variable: _meaning(variable) for variable in free_variables(tp)})


def _meaning(variable: Any) -> Any:
    if not isinstance(variable, TypeVar):
        return variable
    if variable.__constraints__:
        return Union[variable.__constraints__]  # noqa: UP007
    return Any if variable.__bound__ is None else variable.__bound__


def _is_unpacked(tp: Any) -> bool:
    modules = (typing, sys.modules.get("typing_extensions"))
    return any(get_origin(tp) is getattr(module, "Unpack", ...) for module in modules)

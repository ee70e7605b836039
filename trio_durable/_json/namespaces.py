"""Names that annotations may use, where Python and type checkers look them up.

A name is looked up in the class body, among the type parameters, in the function around the class,
in the module. A field isn't a type, so the default of ``date: date | None = None`` doesn't hide the
class ``date``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import (
    Any,
    ClassVar,
    ForwardRef,
    NewType,
    TypeAlias,
    TypeVar,
    get_origin,
    get_type_hints,
)

import attrs

from .._text import error_summary
from .errors import UnsupportedType


class UnresolvedName(Exception):
    """A name in an annotation, or an attribute of a module, that isn't defined, or not yet."""

    def __init__(self, name: str, member: str, annotation: str) -> None:
        super().__init__(f"{name} in the annotation {annotation!r} isn't defined")
        self.name = name
        self.member = member
        self.annotation = annotation

    @classmethod
    def of(cls, error: NameError, member: str, annotation: str) -> UnresolvedName:
        """The error of an annotation whose evaluation raised ``error``."""
        return cls(error.name or error_summary(error), member, annotation)


class InvalidAnnotation(UnsupportedType):
    """An annotation that can't be evaluated to a type, whatever will be defined later."""

    def __init__(self, member: str, annotation: str, problem: str) -> None:
        super().__init__(f"its annotation {annotation!r} is no type: {problem}")
        self.member = member
        self.annotation = annotation
        self.problem = problem


@attrs.frozen(eq=False)
class Namespace:
    """The names that a class statement sees besides those of imported modules."""

    EMPTY: ClassVar[Namespace]

    names: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Local names of the function that ran the statement."""
    function: str = ""
    """The qualified name of that function; empty for code at module level."""
    module: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Global names, for code whose module isn't in ``sys.modules``."""

    @classmethod
    def of_frame(cls, frame: FrameType) -> Namespace:
        """A snapshot of the names visible in ``frame``, which runs a class statement.

        It keeps the values of all local variables alive. Drop it once the annotations are resolved.
        """
        names: dict[str, Any] = {}
        scope: FrameType | None = frame
        while scope is not None and scope.f_locals is not scope.f_globals:
            if _is_class_body(scope):  # its names aren't visible in classes inside it
                scope = scope.f_back
                continue
            names = {**scope.f_locals, **names}
            if not scope.f_code.co_name.startswith("<generic parameters of "):
                function = scope.f_code.co_qualname
                return cls(names, "" if function == "<module>" else function, frame.f_globals)
            scope = scope.f_back
        return cls(names, "", frame.f_globals)

    def shows(self, cls: type) -> bool:
        """True if ``cls`` was defined where these names are visible."""
        return self.is_of_module(cls.__module__) and (
            not self.function or cls.__qualname__.startswith(f"{self.function}.<locals>.")
        )

    def is_of_module(self, name: str) -> bool:
        """True if the statement ran in the module ``name``."""
        return bool(self.module) and self.module.get("__name__", "builtins") == name


Namespace.EMPTY = Namespace()


def _is_class_body(frame: FrameType) -> bool:
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED and "__qualname__" in frame.f_locals


class Scopes:
    """The names for annotations in the body of a class, as Python and type checkers look them up.

    Args:
        cls: The class.
        namespace: The names where a class statement ran, perhaps that of ``cls``.
    """

    def __init__(self, cls: type, namespace: Namespace) -> None:
        self._module = cls.__module__
        self._globals = module_names(cls.__module__, namespace)
        self._locals: dict[str, Any] = {}
        if namespace.shows(cls):
            self._locals.update(namespace.names)
        around = cls.__qualname__.rpartition(".")[0]
        if around and not around.endswith("<locals>"):
            # Python can't name a class inside a class by its bare name. Should all else fail, a
            # TypedDict that contains itself means itself by it.
            self._globals.setdefault(cls.__name__, cls)
        else:
            self._locals[cls.__name__] = cls
        for parameter in getattr(cls, "__type_params__", ()):
            self._locals[parameter.__name__] = parameter
        annotations = inspect.get_annotations(cls)
        self._locals |= {
            name: value
            for name, value in vars(cls).items()
            if _is_type(value) and (name not in annotations or _is_alias(annotations[name]))
        }

    def evaluate(self, annotation: Any, member: str) -> Any:
        """See `evaluated`."""
        module = getattr(annotation, "__forward_module__", None)
        # A key that a TypedDict inherits from another module doesn't see the names here.
        local_names = self._locals if module in (None, self._module) else {}
        return evaluate(annotation, member, self._globals, local_names)


def evaluate(
    annotation: Any, member: str, global_names: dict[str, Any], local_names: dict[str, Any]
) -> Any:
    """An annotation with all text in it evaluated.

    Raises:
        UnresolvedName: A name isn't defined, perhaps not yet.
        InvalidAnnotation: It is no type.
    """
    # A class of one annotation, since get_type_hints handles text in all places of all types, but
    # doesn't say which member is wrong.
    holder = type("holder", (), {"__annotations__": {member: annotation}})
    try:
        return get_type_hints(holder, global_names, local_names, include_extras=True)[member]
    except NameError as error:
        raise UnresolvedName.of(error, member, annotation_text(annotation)) from error
    except Exception as error:
        text = annotation_text(annotation)
        if isinstance(error, AttributeError) and isinstance(error.obj, (ModuleType, type)):
            # A module in a circle of imports gets its names later, too.
            raise UnresolvedName(f"{error.obj.__name__}.{error.name}", member, text) from error
        raise InvalidAnnotation(member, text, error_summary(error)) from error


def module_names(module: str, namespace: Namespace = Namespace.EMPTY) -> dict[str, Any]:
    """The global names of a module, which may run its body still."""
    names = dict(getattr(sys.modules.get(module), "__dict__", {}))
    if namespace.is_of_module(module):
        names.update(namespace.module)
    return names


def _is_type(value: object) -> bool:
    return (
        isinstance(value, (type, NewType, TypeVar))
        or get_origin(value) is not None
        or is_type_alias(value)
    )


def _is_alias(annotation: object) -> bool:
    return annotation is TypeAlias or (
        isinstance(annotation, str) and annotation.rpartition(".")[2] == "TypeAlias"
    )


def is_type_alias(tp: object) -> bool:
    """True for the alias of a ``type`` statement, and for one made by ``TypeAliasType``."""
    return type(tp).__name__ == "TypeAliasType"  # of typing from 3.12, or of typing_extensions


def annotation_text(annotation: Any) -> str:
    """The source of an annotation, about as it was written."""
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

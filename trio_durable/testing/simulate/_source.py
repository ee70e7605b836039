"""Python source of the values in a printed story."""

from __future__ import annotations

import math
from enum import Enum


def source_of(value: object) -> str:
    """Source that evaluates to ``value``, as far as its classes have a `repr` that does.

    Differs from `repr` where that is no expression, as of enums, classes and ``nan``, and where its
    order depends on hashes, as of sets.
    """
    if isinstance(value, Enum):
        name = type(value).__qualname__
        is_named = value.name in type(value).__members__  # combined flags aren't
        return f"{name}.{value.name}" if is_named else f"{name}({value.value!r})"
    if isinstance(value, type):
        return value.__qualname__
    # Subclasses, such as named tuples, have a repr of their own.
    kind = type(value)
    if kind is float and not math.isfinite(value):  # type: ignore[arg-type]  # a float
        return f"float('{value!r}')"
    match value:
        case list() if kind is list:
            return f"[{', '.join(map(source_of, value))}]"
        case tuple() if kind is tuple:
            return f"({', '.join(map(source_of, value))}{',' * (len(value) == 1)})"
        case set() if kind is set and value:
            return f"{{{', '.join(sorted(map(source_of, value)))}}}"
        case frozenset() if kind is frozenset and value:
            return f"frozenset({{{', '.join(sorted(map(source_of, value)))}}})"
        case dict() if kind is dict:
            pairs = (f"{source_of(key)}: {source_of(each)}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            return repr(value)

"""Strategies of arguments, derived from the annotations of handlers.

Values are small and often equal, since those find most bugs: a key that occurs twice, an amount
that is just too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ..._declarations.records import HandlerDefinition
from ..._errors import DefinitionError

_PLAIN: dict[object, SearchStrategy[Any]] = {
    int: st.integers(-1000, 1000),
    float: st.integers(-4000, 4000).map(lambda quarters: quarters / 4),
    str: st.text("abc", max_size=3),
    datetime: st.datetimes(datetime(2029, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC)),
    timedelta: st.integers(0, 7 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
    Any: st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
}


def strategy_of(annotation: object) -> SearchStrategy[Any]:
    """The strategy of an annotation."""
    try:
        plain = _PLAIN.get(annotation)
    except TypeError:  # Annotated with something unhashable
        plain = None
    if plain is not None:
        return plain
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated and len(args) == 1:
        return strategy_of(args[0])
    if origin in (Union, UnionType):
        # Hypothesis shrinks to the first: `x: Order | None` shrinks to None.
        ordered = sorted(args, key=lambda arg: arg is not type(None))
        return st.one_of([strategy_of(arg) for arg in ordered])
    if origin is list:
        return st.lists(strategy_of(args[0]), max_size=3)
    if origin is set:
        return st.sets(strategy_of(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(strategy_of(args[0]), strategy_of(args[1]), max_size=3)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return st.tuples(*map(strategy_of, args))
    return st.from_type(annotation)  # type: ignore[arg-type]  # Hypothesis refuses what is no type


def arguments_of(
    owner: str, type_name: str, handler: HandlerDefinition, given: Mapping[str, SearchStrategy[Any]]
) -> SearchStrategy[dict[str, Any]]:
    """The strategy of a handler's arguments, by parameter.

    Args:
        owner: The simulation, for messages.
        type_name: The object's class, for messages.
        handler: The handler.
        given: Strategies of parameters. Others follow from annotations.

    Raises:
        DefinitionError: A parameter has neither a strategy nor an annotation.
    """
    hints = _hints(handler)
    by_position = _by_position(handler)
    required: dict[str, SearchStrategy[Any]] = {}
    optional: dict[str, SearchStrategy[Any]] = {}
    for name, parameter in handler.signature.parameters.items():
        if name not in given and parameter.kind in _VARIABLE:
            continue
        if name not in given and name not in hints:
            parameter_name = f"{type_name}.{handler.name}.{name}"
            raise DefinitionError(
                owner,
                "arguments",
                f"{parameter_name} has no annotation that can be resolved; give it a strategy: "
                f'arguments = {{"{parameter_name}": …}}',
            )
        strategy = given[name] if name in given else strategy_of(hints[name])
        # A positional argument can't be left out before another one.
        if parameter.default is not Parameter.empty and name not in by_position:
            optional[name] = strategy
        else:
            required[name] = strategy
    return st.fixed_dictionaries(required, optional=optional)


def split(
    handler: HandlerDefinition, drawn: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split ``drawn`` into positional and keyword arguments."""
    by_position = _by_position(handler)
    args = tuple(drawn[name] for name in by_position if name in drawn)
    return args, {name: value for name, value in drawn.items() if name not in by_position}


_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _by_position(handler: HandlerDefinition) -> list[str]:
    """The names of the parameters to pass by position.

    These are the positional-only ones. If a parameter is named ``fault``, it and all before it are
    passed by position, too, since `Simulation.call` has a keyword of that name.
    """
    parameters = list(handler.signature.parameters.values())
    names = [parameter.name for parameter in parameters]
    if "fault" in names and parameters[names.index("fault")].kind not in (
        *_VARIABLE,
        Parameter.KEYWORD_ONLY,
    ):
        return names[: names.index("fault") + 1]
    return [p.name for p in parameters if p.kind is Parameter.POSITIONAL_ONLY]


def _hints(handler: HandlerDefinition) -> dict[str, Any]:
    try:
        return get_type_hints(handler.function, include_extras=True)
    except NameError:
        # The string annotations can't be resolved. Strategies of these parameters must be given.
        annotations = handler.function.__annotations__
        return {name: hint for name, hint in annotations.items() if not isinstance(hint, str)}

"""The steps that hypothesis draws: a rule for each handler, and some for what else may happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, Protocol

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.strategies import SearchStrategy

from ..._api.durable_object import DurableObject, ObjectDefinition
from ..._declarations.records import HandlerDefinition
from ..._durations import Duration
from ..._errors import DefinitionError
from ._faults import Chance
from ._process import Call
from ._strategies import arguments_of, split

TOLD = "__durable_told__"
"""Marks the functions of rules that tell themselves how they are to be printed."""

_PREFIX = "_drawn_"
_OTHERS = (0, 0, 0, 1, 2)
"""With how many others a call is made together."""

Definitions = Mapping[type[DurableObject], ObjectDefinition]


class Steps(Protocol):
    """The part of a `Simulation` that rules use: its ids, its steps, and the fault of the next."""

    ids: ClassVar[Sequence[str]]
    _chance: Chance | None

    def call(
        self,
        object_type: type[DurableObject],
        object_id: str,
        handler: str,
        /,
        *args: Any,
        fault: str | None = None,
        **kwargs: Any,
    ) -> Call:
        """See `Simulation.call`."""
        ...

    def together(self, *calls: Call, fault: str | None = None) -> Sequence[Call]:
        """See `Simulation.together`."""
        ...

    def wait(self, delay: Duration, fault: str | None = None) -> None:
        """See `Simulation.wait`."""
        ...

    def wait_for_alarm(self, fault: str | None = None) -> None:
        """See `Simulation.wait_for_alarm`."""
        ...

    def crash(self, down_for: Duration = 0) -> None:
        """See `Simulation.crash`."""
        ...

    def restart(self) -> None:
        """See `Simulation.restart`."""
        ...


def add_rules(
    cls: type[Steps],
    definitions: Definitions,
    *,
    given: Mapping[str, SearchStrategy[Any]],
    left_out: Sequence[str],
    delays: Sequence[float],
) -> None:
    """Give a simulation its rules.

    Raises:
        DefinitionError: What is given doesn't fit.
    """
    calls = _calls(cls.__qualname__, definitions, cls.ids, given, left_out)
    chances = st.sampled_from(_chances())
    for name in dir(cls):
        if name.startswith(_PREFIX):
            setattr(cls, name, None)  # a base's, which may have other objects
    _add(cls, "nothing", _nothing)
    # Some are made together with others, and when the story is shortened, alone.
    any_call = st.one_of(list(calls.values()))
    lists = {size: st.lists(any_call, min_size=size, max_size=size) for size in _OTHERS}
    others = st.sampled_from(_OTHERS).flatmap(lists.__getitem__)
    for (definition, handler), call in calls.items():
        name = f"call_{definition.cls.__name__}_{handler}"
        _add(cls, name, _call, call=call, others=others, chance=chances)
    # One rule for these, or some stories would be nothing but processes that end.
    waits = [("wait", delay) for delay in delays]
    crashes = [("crash", delay) for delay in (0.0, *delays)]
    interlude = st.sampled_from([*waits, *waits, *crashes, ("restart", 0.0)])
    _add(cls, "interlude", _interlude, interlude=interlude, chance=chances)
    if _have_alarms(definitions):
        _add(cls, "wait_for_alarm", _wait_for_alarm, chance=chances)


def _add(
    cls: type[Steps], name: str, step: Callable[..., None], **drawn: SearchStrategy[Any]
) -> None:
    # A function of its own, by whose name hypothesis sorts the rules.
    @wraps(step)
    def function(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)

    function.__name__ = name
    setattr(function, TOLD, True)
    decorate: Any = rule
    setattr(cls, f"{_PREFIX}{name}", decorate(**drawn)(function))


def _nothing(self: Steps) -> None:
    """The simplest of all steps, which a step becomes on its way out of a story.

    Hypothesis takes out a few choices at a time, fewer than most steps consist of.
    """


def _call(self: Steps, call: Call, others: list[Call], chance: Chance | None) -> None:
    self._chance = chance
    if others:
        self.together(call, *others)
    else:
        kwargs: dict[str, Any] = call.kwargs
        self.call(call.object_type, call.object_id, call.handler, *call.args, **kwargs)


def _interlude(self: Steps, interlude: tuple[str, float], chance: Chance | None) -> None:
    match interlude:
        case "wait", delay:
            self._chance = chance
            self.wait(delay)
        case "crash", down_for:
            self.crash(down_for)
        case _:
            self.restart()


def _wait_for_alarm(self: Steps, chance: Chance | None) -> None:
    self._chance = chance
    self.wait_for_alarm()


def _have_alarms(definitions: Definitions) -> bool:
    return any(d.alarms or d.handle_alarm for d in definitions.values())


def story_settings(base: settings) -> settings:
    """Those of a simulation, unless its user changes them."""
    # Explaining a failure traces every line that runs, which takes many times as long.
    phases = [phase for phase in Phase if phase is not Phase.explain]
    # Short stories, for most goes wrong where things are new.
    return settings(base, phases=phases, stateful_step_count=30)


class _AllSwitchedOn:
    """In the place of hypothesis' own choice of the rules that it leaves out of a story.

    What it draws for that, with each step and some more with the first, is in the way when a story
    is to be shortened.
    """

    def is_enabled(self, _name: str) -> bool:
        return True


def leave_no_rule_out(machine: RuleBasedStateMachine) -> None:
    """Let every rule be in every story. Were hypothesis to change inside, stories are longer."""
    strategy: Any = getattr(machine, "_rules_strategy", None)
    if hasattr(strategy, "enabled_rules_strategy"):
        strategy.enabled_rules_strategy = st.just(_AllSwitchedOn())


Calls = dict[tuple[ObjectDefinition, str], SearchStrategy[Call]]


def _calls(
    owner: str,
    definitions: Definitions,
    ids: Sequence[str],
    given: Mapping[str, SearchStrategy[Any]],
    left_out: Sequence[str],
) -> Calls:
    known = {f"{cls.__name__}.{name}" for cls, d in definitions.items() for name in d.handlers}
    for what, names in (
        ("left_out", left_out),
        ("arguments", [name.rpartition(".")[0] for name in given]),
    ):
        for name in names:
            if name not in known:
                raise DefinitionError(
                    owner, what, f"there is no handler {name!r}, but {', '.join(sorted(known))}"
                )
    calls: Calls = {}
    for cls, definition in definitions.items():
        for handler in definition.handlers.values():
            prefix = f"{cls.__name__}.{handler.name}"
            if prefix in left_out:
                continue
            own = {
                name.rpartition(".")[2]: strategy
                for name, strategy in given.items()
                if name.rpartition(".")[0] == prefix
            }
            unknown = [name for name in own if name not in handler.signature.parameters]
            if unknown:
                problem = f"{prefix} has no parameter {', '.join(unknown)}"
                raise DefinitionError(
                    owner, "arguments", f"{problem}; it takes {handler.signature}"
                )
            drawn = arguments_of(owner, cls.__name__, handler, own)
            calls[definition, handler.name] = _calls_of(cls, ids, handler, drawn)
    return calls


def _calls_of(
    cls: type[DurableObject],
    ids: Sequence[str],
    handler: HandlerDefinition,
    arguments: SearchStrategy[dict[str, Any]],
) -> SearchStrategy[Call]:
    def call(object_id: str, drawn: dict[str, Any]) -> Call:
        args, kwargs = split(handler, drawn)
        return Call(cls, object_id, handler.name, *args, **kwargs)

    return st.builds(call, st.sampled_from(list(ids)), arguments)


def _chances() -> list[Chance | None]:
    """What may go wrong. In half of all steps nothing is meant to."""
    points = (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6)
    crashes = [Chance("crash", point) for point in points]
    failures = [Chance("fail", point) for point in points]
    return [*([None] * 2 * len(points)), *crashes, *failures]

"""Rules that Hypothesis draws as steps: one per handler, and some for time, alarms and crashes."""

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
from ._call import Call
from ._faults import DrawnFault
from ._strategies import arguments_of, split

PRINTS_ITSELF = "__durable_prints_itself__"
"""Attribute that marks the functions of rules whose steps a `Simulation` prints itself."""

_PREFIX = "_drawn_"
_OTHER_CALLS = (0, 0, 0, 1, 2)
"""The numbers of other calls, one of which is drawn, that a step makes together with its call."""

Definitions = Mapping[type[DurableObject], ObjectDefinition]


class CallSteps(Protocol):
    """Calls of objects: those of a `Simulation` without a tenant, or of a `SimulatedTenant`."""

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


class Steps(CallSteps, Protocol):
    """The part of a `Simulation` that rules use: ids, steps, and the fault drawn for a step."""

    ids: ClassVar[Sequence[str]]
    tenants: ClassVar[Sequence[str]]
    shared: ClassVar[Sequence[type[DurableObject]]]
    tenant_drops: ClassVar[bool]
    crossings: ClassVar[Sequence[str]]
    _drawn_fault: DrawnFault | None

    def tenant(self, name: str, /) -> CallSteps:
        """See `Simulation.tenant`."""
        ...

    def drop_tenant(self, name: str, fault: str | None = None) -> None:
        """See `Simulation.drop_tenant`."""
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

    def crash(self, down_for: Duration = 0, fault: str | None = None) -> None:
        """See `Simulation.crash`."""
        ...

    def set_clock(self, by: Duration, fault: str | None = None) -> None:
        """See `Simulation.set_clock`."""
        ...

    def restart(self, fault: str | None = None) -> None:
        """See `Simulation.restart`."""
        ...

    def back_up(self) -> None:
        """See `Simulation.back_up`."""
        ...

    def restore_backup(self, fault: str | None = None) -> None:
        """See `Simulation.restore_backup`."""
        ...


def add_rules(
    cls: type[Steps],
    definitions: Definitions,
    *,
    given: Mapping[str, SearchStrategy[Any]],
    left_out: Sequence[str],
    delays: Sequence[float],
    jumps: Sequence[float],
    second_owners: bool,
    backups: bool,
) -> None:
    """Add the rules to a simulation.

    Args:
        cls: The simulation.
        definitions: The definitions of its classes.
        given: Strategies of arguments, by ``"Class.handler.parameter"``.
        left_out: Handlers without a rule, as ``"Class.handler"``.
        delays: The lengths of waits, in seconds.
        jumps: The steps by which the clock is set, in seconds.
        second_owners: Whether processes are replaced by a second owner.
        backups: Whether backups are made and restored.

    Raises:
        DefinitionError: ``given`` or ``left_out`` names an unknown handler or parameter.
    """
    calls = _calls(cls, definitions, given, left_out)
    faults = st.sampled_from(_faults(second_owners))
    for name in dir(cls):
        if name.startswith(_PREFIX):
            setattr(cls, name, None)  # of a base class, whose objects may differ
    _add(cls, "nothing", _nothing)
    # Concurrent calls shrink to a single one.
    any_call = st.one_of(list(calls.values()))
    lists = {size: st.lists(any_call, min_size=size, max_size=size) for size in _OTHER_CALLS}
    others = st.sampled_from(_OTHER_CALLS).flatmap(lists.__getitem__)
    for (definition, handler), call in calls.items():
        name = f"call_{definition.cls.__name__}_{handler}"
        _add(cls, name, _call, call=call, others=others, fault=faults)
    # One rule for all, or crashes and restarts would be most of the steps.
    waits = [("wait", delay) for delay in delays]
    crashes = [("crash", delay) for delay in (0.0, *delays)]
    sets = [("set_clock", jump) for jump in jumps]
    of_backups = [("back_up", 0.0), ("restore_backup", 0.0)] * backups
    drops = [("drop_tenant", name) for name in cls.tenants] * cls.tenant_drops
    interlude = st.sampled_from(
        [*waits, *waits, *crashes, ("restart", 0.0), *sets, *of_backups, *drops]
    )
    _add(cls, "interlude", _interlude, interlude=interlude, fault=faults)
    if _have_alarms(definitions):
        _add(cls, "wait_for_alarm", _wait_for_alarm, fault=faults)


def _add(
    cls: type[Steps], name: str, step: Callable[..., None], **drawn: SearchStrategy[Any]
) -> None:
    # Each rule needs a function of its own: Hypothesis sorts rules by the names of functions.
    @wraps(step)
    def function(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)

    function.__name__ = name
    setattr(function, PRINTS_ITSELF, True)
    decorate: Any = rule
    setattr(cls, f"{_PREFIX}{name}", decorate(**drawn)(function))


def _nothing(self: Steps) -> None:
    """The simplest step. A step shrinks to it before Hypothesis removes it from a story.

    Hypothesis removes a few choices at a time, fewer than most steps consist of.
    """


def _call(self: Steps, call: Call, others: list[Call], fault: DrawnFault | None) -> None:
    self._drawn_fault = fault
    if others:
        self.together(call, *others)
    else:
        target: CallSteps = self.tenant(call.tenant) if call.tenant else self
        kwargs: dict[str, Any] = call.kwargs
        target.call(call.object_type, call.object_id, call.handler, *call.args, **kwargs)


def _interlude(self: Steps, interlude: tuple[str, Any], fault: DrawnFault | None) -> None:
    self._drawn_fault = fault
    match interlude:
        case "wait", delay:
            self.wait(delay)
        case "crash", down_for:
            self.crash(down_for)
        case "set_clock", by:
            self.set_clock(by)
        case "drop_tenant", name:
            self.drop_tenant(name)
        case "back_up", _:
            self.back_up()
        case "restore_backup", _:
            self.restore_backup()
        case _:
            self.restart()


def _wait_for_alarm(self: Steps, fault: DrawnFault | None) -> None:
    self._drawn_fault = fault
    self.wait_for_alarm()


def _have_alarms(definitions: Definitions) -> bool:
    return any(d.alarms or d.handle_alarm for d in definitions.values())


def story_settings(base: settings) -> settings:
    """The default settings of a simulation."""
    # Phase.explain traces every line that runs, which takes many times as long.
    phases = [phase for phase in Phase if phase is not Phase.explain]
    # Short stories: most bugs need few steps from an empty disk.
    return settings(base, phases=phases, stateful_step_count=30)


class _AllRulesEnabled:
    """Replaces the choice by which Hypothesis disables some rules for a whole story.

    Hypothesis makes draws for it in each step, and more in the first. They hinder shrinking.
    """

    def is_enabled(self, _name: str) -> bool:
        return True


def enable_all_rules(machine: RuleBasedStateMachine) -> None:
    """Enable all rules in every story.

    It sets a private attribute of Hypothesis. A release without it only makes stories longer.
    """
    strategy: Any = getattr(machine, "_rules_strategy", None)
    if hasattr(strategy, "enabled_rules_strategy"):
        strategy.enabled_rules_strategy = st.just(_AllRulesEnabled())


Calls = dict[tuple[ObjectDefinition, str], SearchStrategy[Call]]


def _calls(
    simulation: type[Steps],
    definitions: Definitions,
    given: Mapping[str, SearchStrategy[Any]],
    left_out: Sequence[str],
) -> Calls:
    owner = simulation.__qualname__
    known = {f"{cls.__name__}.{name}" for cls, d in definitions.items() for name in d.handlers}
    for attribute, names in (
        ("left_out", left_out),
        ("crossings", simulation.crossings),
        ("arguments", [name.rpartition(".")[0] for name in given]),
    ):
        for name in names:
            if name not in known:
                raise DefinitionError(
                    owner,
                    attribute,
                    f"there is no handler {name!r}; there are {', '.join(sorted(known))}",
                )
    calls: Calls = {}
    for cls, definition in definitions.items():
        tenants = [""] if cls in simulation.shared else (simulation.tenants or [""])
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
            calls[definition, handler.name] = _calls_of(
                cls, tenants, simulation.ids, handler, drawn
            )
    return calls


def _calls_of(
    cls: type[DurableObject],
    tenants: Sequence[str],
    ids: Sequence[str],
    handler: HandlerDefinition,
    arguments: SearchStrategy[dict[str, Any]],
) -> SearchStrategy[Call]:
    def call(tenant: str, object_id: str, drawn: dict[str, Any]) -> Call:
        args, kwargs = split(handler, drawn)
        new = Call(cls, object_id, handler.name, *args, **kwargs)
        return new.of_tenant(tenant) if tenant else new

    return st.builds(call, st.sampled_from(tenants), st.sampled_from(list(ids)), arguments)


def _faults(second_owners: bool) -> list[DrawnFault | None]:
    """The faults to draw from, and about as many times None."""
    points = (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6)
    crashes = [DrawnFault("crash", point) for point in points]
    failures = [DrawnFault("fail", point) for point in points]
    # Few: each runs two processes more, and most of them come to the same as a crash.
    replacements = [DrawnFault("replace", point) for point in (1, 1, 2, 2, 3, 4)]
    if not second_owners:
        replacements = []
    return [*([None] * 2 * len(points)), *crashes, *failures, *replacements]

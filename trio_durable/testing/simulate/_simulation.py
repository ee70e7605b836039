"""`Simulation`: a hypothesis state machine over durable object classes.

Prior art: QuickCheck's state machines (Claessen and Hughes) and hypothesis' own; the deterministic
simulation of FoundationDB and TigerBeetle, which draw the faults along with the calls.

A story is a list of steps. In each, something is done: calls, time that passes, a crash. At most
one thing goes wrong in it, at a point that the story names. When nothing goes on any more, and
after a crash the next process has started, everything is checked. So there is nothing that a story
doesn't say, and it is the same whenever it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from hypothesis import currently_in_test_context
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.strategies import SearchStrategy

from ..._alarms.alarm import Alarm
from ..._api.durable_object import DurableObject, ObjectDefinition, definition_of
from ..._clock import instant
from ..._durations import Duration, seconds
from ..._errors import DefinitionError, DurableError
from ..._keys import ObjectKey
from ...storage import StoredObject
from ._alarm_log import alarm_errors
from ._attributes import check_attributes, polling_interval
from ._contents import Contents, check_memory
from ._disk import Disk
from ._faults import Chance, Faults, Life
from ._models import ModelClasses, Models, check_models
from ._operations import Operation, Record
from ._outside import StandIn, stand_ins
from ._process import LONGEST, Call, Process
from ._randomness import seeded_generators
from ._rules import TOLD, add_rules, leave_no_rule_out, story_settings

T = TypeVar("T", bound=DurableObject)


class Simulation(RuleBasedStateMachine):
    """What may happen to durable objects, and what must always hold.

    ::

        class Accounts(Simulation):
            objects = [Account]

            @invariant()
            def nobody_is_overdrawn(self) -> None:
                assert all(a.balance >= 0 for a in self.stored(Account).values())


        TestAccounts = Accounts.TestCase

    Hypothesis draws the steps: every handler of every class is called, alone and together with
    others, time passes, alarms fire, the process crashes, commits fail. It is a state machine of
    hypothesis like any other, so rules, invariants and settings are those of hypothesis.

    Raises:
        DefinitionError: The class can't work; from the class statement itself.
    """

    objects: ClassVar[Sequence[type[DurableObject]]] = ()
    """The classes."""
    ids: ClassVar[Sequence[str]] = ("a", "b", "c")
    """The ids that are called. Few, so that calls meet."""
    arguments: ClassVar[Mapping[str, SearchStrategy[Any]]] = {}
    """What handlers are called with, by ``"Class.handler.parameter"``, where it should be something
    else than annotations give."""
    left_out: ClassVar[Sequence[str]] = ()
    """Handlers that are not called by themselves, as ``"Class.handler"``."""
    models: ClassVar[ModelClasses] = {}
    """A plain class for each durable one that should do as that says: with methods of the same
    names, and attributes that are compared with the fields of the same names."""
    allowed: ClassVar[tuple[type[Exception], ...]] = ()
    """What handlers may raise where no model says so. Anything else fails the story, unless a fault
    has brought it about."""
    delays: ClassVar[Sequence[Duration]] = (1, 60, 3600, 86400)
    """How long to wait."""
    starts_at: ClassVar[datetime] = datetime(2030, 1, 1, tzinfo=UTC)
    """The time of the runtime's clock when a story begins."""
    polling_interval: ClassVar[Duration | None] = None
    """The runtime's. None: a quarter of the longest delay, as waiting takes all the looks."""

    _stand_ins: ClassVar[Mapping[str, StandIn]] = {}
    _definitions: ClassVar[Mapping[type[DurableObject], ObjectDefinition]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        check_attributes(cls)
        if not cls.objects:
            return
        cls._definitions = {each: definition_of(each) for each in cls.objects}
        cls._stand_ins = stand_ins(cls, cls.__qualname__)
        check_models(cls.__qualname__, cls.models, cls.objects)
        add_rules(
            cls,
            cls._definitions,
            given=cls.arguments,
            left_out=cls.left_out,
            delays=[seconds(delay, "delays") for delay in cls.delays],
        )
        cls.TestCase.settings = story_settings(cls.TestCase.settings)

    def __init__(self) -> None:
        if not self.objects:
            raise DefinitionError(type(self).__qualname__, "objects", "names no classes")
        super().__init__()
        leave_no_rule_out(self)
        self._disk = Disk()
        self._contents = Contents(self._disk, self._definitions)
        self._chance: Chance | None = None  # of something going wrong in the next step
        self._faults = Faults([n for n, s in self._stand_ins.items() if s.fails_with is None])
        self._record = Record({d.name: d for d in self._definitions.values()})
        self._models = Models(self.models)
        self._polling_interval = polling_interval(self)
        self._epoch = self.starts_at.timestamp()
        self._now = 0.0
        self._rows: dict[ObjectKey, StoredObject | None] = {}
        self._told: tuple[str, ...] = ()  # the step: its method and arguments
        self._imported: set[type] = set()
        self._is_checked = False
        self._has_ended = False
        with ExitStack() as stack:
            if not currently_in_test_context():
                # Hypothesis does so itself; a pasted story must be the same without it.
                stack.enter_context(seeded_generators())
            self._alarm_errors = stack.enter_context(alarm_errors())
            for name, stand_in in self._stand_ins.items():
                stack.enter_context(stand_in.in_place(getattr(self, name), lambda: self._life))
            self._process = self._start()
            self._undo = stack.pop_all()

    def teardown(self) -> None:
        """End the story: the process is gone, and what stood in for the outside as well."""
        if not self._has_ended:
            self._has_ended = True
            with self._undo:
                self._process.bury()

    # --- steps -----------------------------------------------------------------------------------

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
        """Call a handler and wait for its reply.

        Args:
            object_type: The class.
            object_id: The object's id.
            handler: The handler's name, and then what it is called with.
            *args: By position.
            fault: What goes wrong meanwhile: ``"crash"`` or ``"fail"``, ``"before"`` or
                ``"after"``, ``"commit"``, ``"claim"``, ``"load"`` or ``"effect"``, and which one,
                counted from 1. If there are fewer of these in the step, it goes wrong in a later
                one, unless that has a fault of its own.
            **kwargs: By name.

        Returns:
            The call, with what came of it.

        Raises:
            AssertionError: Something isn't as it must be.
            Exception: The handler raised something that isn't allowed.
            ValueError: The class isn't in ``objects``, or there can be no such fault.
        """
        call = Call(object_type, object_id, handler, *args, **kwargs)
        self._make([call], fault, lambda: ("call", *call.told()))
        return call

    def together(self, *calls: Call, fault: str | None = None) -> Sequence[Call]:
        """Make calls at the same moment, in whatever order they arrive, and wait for all replies.

        Args:
            *calls: What to call: ``Call(Cart, "a", "add", "tea")``. They are returned, too.
            fault: As in `call`.
        """
        self._make(calls, fault, lambda: ("together", *map(repr, calls)))
        return calls

    def wait(self, delay: Duration, fault: str | None = None) -> None:
        """Let time pass. Alarms that come due meanwhile fire.

        Args:
            delay: How much.
            fault: As in `call`.
        """
        length = self._length(delay, "delay")
        self._told = ("wait", f"{length:g}")
        self._pass(length, fault)

    def wait_for_alarm(self, fault: str | None = None) -> None:
        """Let time pass until the next alarm is due, which then fires; if there is one.

        Args:
            fault: As in `call`.
        """
        self._told = ("wait_for_alarm",)
        due_at = self._disk.next_alarm()
        if due_at is not None:
            self._pass(max(0.0, due_at / 1e6 - self._epoch - self._process.now), fault)

    def crash(self, down_for: Duration = 0) -> None:
        """Let the process die between two steps, and start the next one.

        Args:
            down_for: How long nothing runs.
        """
        length = self._length(down_for, "down_for")
        self._told = ("crash", *([f"down_for={length:g}"] if length else []))

        def crash(_process: Process) -> None:
            self._life.is_over = True
            self._recover(length)

        self._step(None, crash)

    def restart(self) -> None:
        """Let the process end in order, and start the next one."""
        self._told = ("restart",)

        def restart(process: Process) -> None:
            process.close()
            self._life.is_over = True
            self._recover(0)

        self._step(None, restart)

    # --- what there is ---------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the runtime's clock."""
        return instant(round((self._epoch + self._process.now) * 1e6))

    def stored(self, object_type: type[T], /) -> dict[str, T]:
        """What is stored, by object id: detached instances. Every object is as it is stored."""
        return self._contents.all_of(object_type)

    def alarms(self, object_type: type[DurableObject], object_id: str, /) -> list[Alarm]:
        """The alarms of an object, by ``due_at``; without dead letters."""
        return self._contents.alarms(object_type, object_id)

    @property
    def has_alarms(self) -> bool:
        """Whether any object has an alarm."""
        return self._disk.next_alarm() is not None

    # --- how a step goes -------------------------------------------------------------------------

    def _make(
        self, calls: Sequence[Call], fault: str | None, told: Callable[[], tuple[str, ...]]
    ) -> None:
        def make(process: Process) -> None:
            for call in calls:
                self._contents.definition(call.object_type)
            self._told = told()
            process.make(calls)
            process.run_until(lambda: all(call.has_ended for call in calls), LONGEST)

        self._step(fault, make, calls)

    def _pass(self, length: float, fault: str | None) -> None:
        # A little more, so that what is due just then happens though time counts in floats.
        end = self._process.now + length + 1e-5

        def wait(_process: Process) -> None:
            while self._process.now < end:
                self._process.run_until(self._faults.check_claims, end - self._process.now)
                if self._life.is_over:
                    self._recover(0)

        self._step(fault, wait)

    def _step(
        self, fault: str | None, act: Callable[[Process], object], calls: Sequence[Call] = ()
    ) -> None:
        if self._has_ended:
            raise AssertionError("the story has ended, with teardown() or with a step that failed")
        chance, self._chance = self._chance, None
        try:
            self._faults.begin_step(chance if fault is None else fault)
            act(self._process)
            self._come_to_rest()
            self._record.cut()
            self._check(calls)
        except BaseException:
            # Not left to whoever tells the story: while one event loop runs no other one can.
            self.teardown()
            raise

    def _length(self, duration: Duration, name: str) -> float:
        try:
            return seconds(duration, name)
        except ValueError:
            self.teardown()  # as after any other step that failed
            raise

    def _come_to_rest(self) -> None:
        """Let everything that is under way come to its end, and recover if the process dies."""
        while True:
            is_quiet = self._process.run_until(self._process.is_quiet, LONGEST)
            if self._life.is_over:
                self._recover(0)
            elif is_quiet:
                return
            else:
                statistics = self._process.runtime.statistics()
                raise AssertionError(f"after an hour something is still under way: {statistics}")

    def _recover(self, down_for: float) -> None:
        """Start the next process, after one that is over."""
        self._record.cut()
        self._now = self._process.now + down_for
        self._process.bury()
        self._disk.release()
        self._process = self._start()

    def _start(self) -> Process:
        self._life = life = Life(self._faults)
        return Process(
            life,
            self._disk.mount(life, self._record),
            self.objects,
            frozenset(self.models),
            self._record,
            self._now,
            round(self._epoch * 1e6),
            self._polling_interval,
        )

    # --- what is checked -------------------------------------------------------------------------

    def _check(self, calls: Sequence[Call]) -> None:
        struck = self._faults.struck is not None
        errors: list[BaseException] = list(self._alarm_errors)
        self._alarm_errors.clear()
        for call in calls:
            # What a modelled class raises its model decides on, but for what the library refuses.
            is_modelled = call.object_type in self.models
            if call.error and (not is_modelled or isinstance(call.error, DurableError)):
                errors.append(call.error)
        for error in errors:
            if not (struck or isinstance(error, self.allowed)):
                raise error
        check_memory(self._process.runtime, self._contents)
        self._check_models(struck)
        for invariant in self.invariants:
            if all(precondition(self) for precondition in invariant.preconditions):
                invariant.function(self)
        self._is_checked = True

    def _check_models(self, struck: bool) -> None:
        taken = self._record.take()
        for cls in self.models:
            name = self._definitions[cls].name
            keys = {key for key in taken if key.type_name == name}
            keys |= {key for key in self._rows if key.type_name == name}
            for key in sorted(keys, key=str):
                operations: list[Operation] = taken.get(key, [])
                row = self._disk.row(key)
                if operations or row is not self._rows.get(key):
                    for operation in operations if struck else ():
                        # What it raised may come from the fault, of which the model knows nothing.
                        operation.is_known &= operation.error is None
                    self._models.check(key, operations, self._contents.state(cls, key))
                self._rows[key] = row

    # --- how hypothesis tells it -----------------------------------------------------------------

    def check_invariants(self, settings: Any, output: Any, runtimes: Any) -> None:
        """See `RuleBasedStateMachine`. Steps check them themselves, and so does a pasted story."""
        is_checked, self._is_checked = self._is_checked, False
        if not is_checked:
            super().check_invariants(settings, lambda line: None, runtimes)

    def _repr_step(self, rule: Any, data: Any, result: Any) -> str:
        # Were hypothesis to call something else one day, stories would look less well.
        if not getattr(rule.function, TOLD, False):
            return super()._repr_step(rule, data, result)
        if not rule.arguments:
            return "pass"
        method, *arguments = self._told
        if self._faults.struck is not None:
            arguments.append(f"fault={str(self._faults.struck)!r}")
        return "\n".join([*self._imports(method), f"state.{method}({', '.join(arguments)})"])

    def _imports(self, method: str) -> Iterator[str]:
        """What the story needs from here on."""
        needed = {*self.objects, *([Call] if method == "together" else ())} - self._imported
        self._imported |= needed
        for module, name in sorted((cls.__module__, cls.__name__) for cls in needed):
            yield f"from {module} import {name}"

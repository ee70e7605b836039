"""`Simulation`: a Hypothesis state machine over durable object classes.

A story is a list of steps: calls, waits, crashes. At most one fault is injected in a step, at a
point that the story names. A step ends when the process is idle; after a crash, when the next
process is. Then all checks are made. So a story determines everything that happens in it, and runs
the same each time.

Prior art: the state machines of QuickCheck (Claessen and Hughes) and of Hypothesis; the
deterministic simulation of FoundationDB and TigerBeetle, which draw faults along with calls.
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
from ..._api.tenant import check_tenant
from ..._clock import instant
from ..._durations import Duration, seconds
from ..._errors import DefinitionError, DurableError
from ..._messages.message import DeadMessage, WaitingMessage
from ._alarm_log import alarm_errors
from ._attributes import check_attributes, checked_jump, polling_interval
from ._call import Call
from ._contents import Contents, check_memory
from ._disk import Disk
from ._faults import DrawnFault, Faults
from ._machine import Machine
from ._model_check import ModelCheck
from ._models import ModelClasses, check_models
from ._operations import Record
from ._outside import StandIn, stand_ins
from ._process import MAX_STEP_SECONDS, Process, TenantDrop, WallClock
from ._randomness import seeded_generators
from ._report import SimulationReport, story_ended
from ._rules import PRINTS_ITSELF, add_rules, enable_all_rules, story_settings
from ._running import report_of_test_case
from ._tenant import SimulatedTenant

T = TypeVar("T", bound=DurableObject)

_SECONDS_TO_NOTICE = 2.0
"""How long a process runs after its clock was set, until it must have seen that."""


class Simulation(RuleBasedStateMachine):
    """A search for a story of calls, crashes and alarms after which an invariant doesn't hold.

    ::

        class Accounts(Simulation):
            objects = [Account]

            @invariant()
            def no_account_is_overdrawn(self) -> None:
                assert all(a.balance >= 0 for a in self.stored(Account).values())


        TestAccounts = Accounts.TestCase

    Hypothesis draws the steps: calls of every handler of every class, alone and concurrently,
    waits in which alarms fire, crashes, failing commits. A simulation is a `RuleBasedStateMachine`
    like any other, with the rules, invariants and settings of Hypothesis.

    Raises:
        DefinitionError: The class is invalid. The class statement itself raises this.
    """

    objects: ClassVar[Sequence[type[DurableObject]]] = ()
    """The durable object classes."""
    ids: ClassVar[Sequence[str]] = ("a", "b", "c")
    """The ids of the objects that are called. Few, so that calls meet in one object."""
    tenants: ClassVar[Sequence[str]] = ()
    """The tenants whose objects are called. Without any, objects have no tenant."""
    shared: ClassVar[Sequence[type[DurableObject]]] = ()
    """Those of ``objects`` that have no tenant, if there are ``tenants``."""
    tenant_drops: ClassVar[bool] = False
    """True if steps drop a tenant."""
    crossings: ClassVar[Sequence[str]] = ()
    """Handlers that objects of another tenant may call, as ``"Class.handler"``. Any other call
    from one tenant to another fails the story. Objects of tenants and those without one may always
    call each other."""
    arguments: ClassVar[Mapping[str, SearchStrategy[Any]]] = {}
    """Strategies of arguments, by ``"Class.handler.parameter"``. Others follow from annotations."""
    left_out: ClassVar[Sequence[str]] = ()
    """Handlers that no step calls, as ``"Class.handler"``. Objects may call them."""
    models: ClassVar[ModelClasses] = {}
    """Plain classes that model durable ones, by durable class. A model has methods named like the
    handlers, and attributes that are compared with the fields of the same names."""
    allowed: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors that handlers of classes without a model may raise. Any other error fails the story,
    unless a fault was injected in the step."""
    delays: ClassVar[Sequence[Duration]] = (1, 60, 3600, 86400)
    """Lengths of waits, and of the time between a crash and the next start."""
    clock_jumps: ClassVar[Sequence[Duration]] = ()
    """Steps by which the clock is set while a process runs: forward or, if negative, back. With any
    of them each second of a wait slows the search down, since so often a clock that may jump is
    looked at."""
    second_owners: ClassVar[bool] = False
    """True if a fault may be that a second process takes over, while the first one still acts
    outside. It happens on PostgreSQL; the lock of an SQLite file excludes it."""
    backups: ClassVar[bool] = False
    """True if steps make a backup of the database, and restore it as after the loss of a server."""
    starts_at: ClassVar[datetime] = datetime(2030, 1, 1, tzinfo=UTC)
    """The time of the runtime's clock when a story begins."""
    polling_interval: ClassVar[Duration | None] = None
    """The polling interval of the runtimes. None: a quarter of the longest delay, at least 30 s.
    Each poll in a wait slows the search down."""

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
            jumps=[checked_jump(jump, ValueError) for jump in cls.clock_jumps],
            second_owners=cls.second_owners,
            backups=cls.backups,
        )
        cls.TestCase.settings = story_settings(cls.TestCase.settings)
        report_of_test_case(cls)

    def __init__(self) -> None:
        if not self.objects:
            raise DefinitionError(type(self).__qualname__, "objects", "must not be empty")
        super().__init__()
        enable_all_rules(self)
        self._disk = Disk()
        self._contents = Contents(self._disk, self._definitions)
        self._drawn_fault: DrawnFault | None = None  # for the next step
        self._faults = Faults([n for n, s in self._stand_ins.items() if s.fails_with is None])
        self.report: SimulationReport = SimulationReport(type(self).__qualname__)
        """The events of this story so far."""
        self.report.invariants.update({each.function.__name__: 0 for each in self.invariants})
        self._record = Record({d.name: d for d in self._definitions.values()}, self.report)
        self._models = ModelCheck(
            self.models, self._definitions, self._disk, self._contents, self.report
        )
        self._clock = WallClock(self.starts_at.timestamp(), may_jump=bool(self.clock_jumps))
        self._machine = Machine(
            self._disk,
            self._clock,
            self._faults,
            self._record,
            self.objects,
            frozenset(self.objects if self.tenants else self.models),
            polling_interval(self),
        )
        self._printed_step: tuple[str, ...] = ()  # its method and arguments
        self._imported: set[type] = set()
        self._is_checked = False
        self._has_ended = False
        with ExitStack() as stack:
            if not currently_in_test_context():
                # Hypothesis does so itself; a pasted story must be the same without it.
                stack.enter_context(seeded_generators())
            self._errors = stack.enter_context(alarm_errors())
            for name, stand_in in self._stand_ins.items():
                stack.enter_context(
                    stand_in.in_place(getattr(self, name), lambda: self._machine.life)
                )
            self._machine.start()
            self._undo = stack.pop_all()

    def teardown(self) -> None:
        """End the story, with its process and its stand-ins."""
        if not self._has_ended:
            self._has_ended = True
            story_ended(self.report)
            with self._undo:
                self._machine.process.dispose()

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
            handler: The handler's name.
            *args: The handler's positional arguments.
            fault: The fault to inject in the step: ``"crash"``, ``"fail"`` or ``"replace"``,
                ``"before"`` or ``"after"``, ``"commit"``, ``"claim"``, ``"load"``, ``"effect"``,
                ``"defer"``, ``"mark"``, ``"retry"`` or ``"drop"``, and its number from 1, as in
                ``"crash after commit 2"``. A step with fewer points of the kind runs without a
                fault.
            **kwargs: The handler's keyword arguments.

        Returns:
            The call, with its outcome.

        Raises:
            AssertionError: A check or an invariant fails.
            Exception: The handler raised an error that isn't allowed.
            ValueError: The class isn't in ``objects``, or there is no such fault.
        """
        call = Call(object_type, object_id, handler, *args, **kwargs)
        self._call_one(call, fault)
        return call

    def tenant(self, name: str, /) -> SimulatedTenant:
        """The objects of a tenant: calls of them, and what is stored of them.

        Raises:
            InvalidTenant: ``name`` can't be a tenant's name.
        """
        check_tenant(name)
        return SimulatedTenant(name, self._contents, self._call_one)

    def together(self, *calls: Call, fault: str | None = None) -> Sequence[Call]:
        """Make calls at the same time, in any order, and wait for all replies.

        Args:
            *calls: The calls, such as ``Call(Cart, "a", "add", "tea")``; of a tenant,
                ``Call(Cart, "a", "add", "tea").of_tenant("acme")``.
            fault: As in `call`.

        Returns:
            The calls, with their outcomes.
        """
        self._call_all(calls, fault, lambda: ("together", *map(repr, calls)))
        return calls

    def wait(self, delay: Duration, fault: str | None = None) -> None:
        """Let time pass. Alarms that are due by then fire.

        Args:
            delay: How long; a ``timedelta`` or seconds.
            fault: As in `call`.
        """
        length = self._checked_seconds(delay, "delay")
        self._printed_step = ("wait", f"{length:g}")
        self._let_pass(length, fault)

    def wait_for_alarm(self, fault: str | None = None) -> None:
        """Let time pass until the next alarm is due and fires. Without an alarm, no time passes.

        Args:
            fault: As in `call`.
        """
        self._printed_step = ("wait_for_alarm",)
        due_at = self._disk.next_alarm()
        if due_at is not None:
            self._let_pass(
                max(0.0, due_at / 1e6 - self._clock.epoch - self._machine.process.now), fault
            )

    def crash(self, down_for: Duration = 0, fault: str | None = None) -> None:
        """Crash the process between two steps, and start the next one.

        Args:
            down_for: How long no process runs; a ``timedelta`` or seconds.
            fault: As in `call`, in the next process.
        """
        length = self._checked_seconds(down_for, "down_for")
        self._printed_step = ("crash", *([f"down_for={length:g}"] if length else []))

        def crash(_process: Process) -> None:
            self._machine.life.is_over = True
            self._machine.recover(length)

        self._step(fault, crash)

    def restart(self, fault: str | None = None) -> None:
        """Close the runtime in order, and start the next process.

        Args:
            fault: As in `call`, in either process.
        """
        self._printed_step = ("restart",)

        def restart(process: Process) -> None:
            process.close()
            self._machine.life.is_over = True
            self._machine.recover(0)

        self._step(fault, restart)

    def drop_tenant(self, name: str, fault: str | None = None) -> None:
        """Drop a tenant: its objects, alarms and messages.

        Args:
            name: The tenant's name.
            fault: As in `call`.
        """
        self._printed_step = ("drop_tenant", repr(name))

        def drop(process: Process) -> None:
            dropped = TenantDrop(name)
            process.start_drop(dropped)
            process.run_until(
                lambda: self._machine.life.is_replaced or dropped.has_ended, MAX_STEP_SECONDS
            )
            if dropped.error is not None:
                self._errors.append(dropped.error)

        self._step(fault, drop)

    def back_up(self) -> None:
        """Make a backup of the database, which replaces an earlier one."""
        self._printed_step = ("back_up",)

        def back_up(_process: Process) -> None:
            self._disk.back_up()
            self._models.back_up()

        self._step(None, back_up)

    def restore_backup(self, fault: str | None = None) -> None:
        """Crash, and go on with the last backup; without any, with the empty database.

        The objects, alarms and messages are as they were then, and so are the models. The outside,
        which is in attributes of the simulation, stays as it is.

        Args:
            fault: As in `call`, in the next process.
        """
        self._printed_step = ("restore_backup",)

        def restore(_process: Process) -> None:
            self._machine.life.is_over = True
            self._disk.restore()
            self._models.restore()
            self.report.restores += 1
            self._machine.recover(0)

        self._step(fault, restore)

    def set_clock(self, by: Duration, fault: str | None = None) -> None:
        """Set the clock of the machine, which runs on.

        Args:
            by: How far forward, or back if negative; a ``timedelta`` or seconds. The class declares
                such steps in ``clock_jumps``.
            fault: As in `call`.
        """
        try:
            length = checked_jump(by, lambda problem: ValueError(f"by {problem}"))
            if not self._clock.may_jump:
                raise ValueError("the class has no clock_jumps, so its runtimes watch no clock")
        except ValueError:
            self.teardown()
            raise
        self._printed_step = ("set_clock", f"{length:g}")

        def jump(process: Process) -> None:
            self._clock.epoch += length
            process.run_until(lambda: False, _SECONDS_TO_NOTICE)

        self._step(fault, jump)

    # --- inspection ------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the runtime's clock."""
        return instant(self._clock.now())

    def stored(self, object_type: type[T], /) -> dict[str, T]:
        """All stored objects of a class, by id, as detached instances."""
        return self._contents.all_of(object_type)

    def alarms(self, object_type: type[DurableObject], object_id: str, /) -> list[Alarm]:
        """The alarms of an object, by ``due_at``, without dead letters."""
        return self._contents.alarms(object_type, object_id)

    @property
    def messages(self) -> list[WaitingMessage]:
        """The messages that wait, by receiver; those to objects of tenants are left out."""
        return self._contents.messages()

    @property
    def dead_messages(self) -> list[DeadMessage]:
        """The dead letters among messages, oldest first; those of tenants are left out."""
        return self._contents.dead_messages()

    def list_tenants(self) -> list[str]:
        """The names of the tenants that have data, in order."""
        return self._disk.tenants()

    @property
    def has_alarms(self) -> bool:
        """True if any object of any tenant has an alarm."""
        return self._disk.next_alarm() is not None

    # --- running a step --------------------------------------------------------------------------

    def _call_one(self, call: Call, fault: str | None) -> None:
        of_tenant = f"tenant({call.tenant!r})." if call.tenant else ""
        self._call_all([call], fault, lambda: (f"{of_tenant}call", *call.told()))

    def _call_all(
        self, calls: Sequence[Call], fault: str | None, printed: Callable[[], tuple[str, ...]]
    ) -> None:
        def start(process: Process) -> None:
            for call in calls:
                self._contents.definition(call.object_type)
            self._printed_step = printed()
            process.start_calls(calls)
            process.run_until(
                lambda: self._machine.life.is_replaced or all(call.has_ended for call in calls),
                MAX_STEP_SECONDS,
            )

        self._step(fault, start, calls)

    def _let_pass(self, length: float, fault: str | None) -> None:
        # 10 µs more: alarms due at the end must fire in spite of rounded floats.
        end = self._machine.process.now + length + 1e-5

        def wait(_process: Process) -> None:
            while self._machine.process.now < end:
                self._machine.process.run_until(
                    lambda: self._faults.check_claims() or self._machine.life.is_replaced,
                    end - self._machine.process.now,
                )
                if not self._machine.life.is_heard:
                    self._machine.recover(0)

        self._step(fault, wait)

    def _step(
        self, fault: str | None, act: Callable[[Process], object], calls: Sequence[Call] = ()
    ) -> None:
        if self._has_ended:
            raise AssertionError("the story has ended, by teardown() or by a step that failed")
        drawn, self._drawn_fault = self._drawn_fault, None
        try:
            self._faults.begin_step(drawn if fault is None else fault)
            self._machine.calls = calls
            act(self._machine.process)
            self._machine.run_until_idle()
            for error in self._machine.trouble:
                raise error
            self._record.end_all()
            self.report.count_step(calls, self._faults.injected)
            self._check(calls)
        except BaseException:
            # A caller may not reach its teardown(), and no other event loop could run until then.
            self.teardown()
            raise

    def _checked_seconds(self, duration: Duration, name: str) -> float:
        try:
            return seconds(duration, name)
        except ValueError:
            self.teardown()  # as after any other step that failed
            raise

    # --- checks ----------------------------------------------------------------------------------

    def _check(self, calls: Sequence[Call]) -> None:
        injected = self._faults.injected is not None
        errors: list[BaseException] = list(self._errors)
        self._errors.clear()
        for call in calls:
            # Models check the errors of their handlers, but not those of the library.
            is_modelled = call.object_type in self.models
            if call.error and (not is_modelled or isinstance(call.error, DurableError)):
                errors.append(call.error)
        for error in errors:
            if not (injected or isinstance(error, self.allowed)):
                raise error
        check_memory(self._machine.process.runtime, self._contents)
        self._record.check_crossings(self.crossings)
        dropped = self._record.dropped_tenants
        self._models.check(self._record.take(), dropped, injected=injected)
        for invariant in self.invariants:
            if all(precondition(self) for precondition in invariant.preconditions):
                self.report.invariants[invariant.function.__name__] += 1
                invariant.function(self)
        self._is_checked = True

    # --- for Hypothesis --------------------------------------------------------------------------

    def check_invariants(self, settings: Any, output: Any, runtimes: Any) -> None:
        """See `RuleBasedStateMachine`. Steps have checked them already, as in a pasted story."""
        is_checked, self._is_checked = self._is_checked, False
        if not is_checked:
            super().check_invariants(settings, lambda line: None, runtimes)

    def _repr_step(self, rule: Any, data: Any, result: Any) -> str:
        # A private method of Hypothesis. If a release doesn't call it, stories print less well.
        if not getattr(rule.function, PRINTS_ITSELF, False):
            return super()._repr_step(rule, data, result)
        if not rule.arguments:
            return "pass"
        method, *arguments = self._printed_step
        if self._faults.injected is not None:
            arguments.append(f"fault={str(self._faults.injected)!r}")
        return "\n".join([*self._imports(method), f"state.{method}({', '.join(arguments)})"])

    def _imports(self, method: str) -> Iterator[str]:
        """The imports that this step adds to the story."""
        needed = {*self.objects, *([Call] if method == "together" else ())} - self._imported
        self._imported |= needed
        for module, name in sorted((cls.__module__, cls.__name__) for cls in needed):
            yield f"from {module} import {name}"

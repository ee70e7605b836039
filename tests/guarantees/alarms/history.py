"""Random histories of alarms, with a crash at any storage call, against what must hold of them.

Every alarm that is ever set carries a token of its own, and its handler adds the token to the
state. A `Journal` of the storage records the effect of each commit on state and alarms, and so for
each token whether it is set, was withdrawn, or has had its effect. The replies to callers must
agree with it. Each history runs in one event loop in virtual time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import anyio
import attrs
from simulation.intercepted import MountedReader, MountedWriter
from support.clock import VirtualTimeLoop
from support.tasks import calls
from trio.testing import MockClock

from trio_durable import (
    Alarm,
    Clock,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    PersistenceError,
    Retry,
    Runner,
    RuntimeClosed,
    StaleObject,
    alarm,
    handler,
)
from trio_durable.storage import (
    Commit,
    DueAlarm,
    ForwardingWriter,
    Reader,
    Storage,
    StorageFault,
    Writer,
)
from trio_durable.storage.memory import _MemoryWriter

T = TypeVar("T")

POLLING_INTERVAL = 5
CLAIM_TTL = 6
LONG = 10
"""Longer than a claim holds that isn't renewed."""
PATIENCE = 100
"""After so many seconds without a fault everything has fired."""
SECOND = timedelta(seconds=1)
ALL = "*"
"""In a log: every name."""


# --- the objects ---------------------------------------------------------------------------------


@attrs.frozen
class Order:
    """The payload of an alarm."""

    token: str
    plan: str
    """What its handler does besides noting the token."""
    failures: int = 0
    """How many attempts fail."""

    @property
    def repeats(self) -> bool:
        return self.plan == "again" and len(self.token) < 8


class Refusal(Exception):
    """What handlers raise."""


class Clerk(DurableObject, hibernate_after=10, shutdown_after=30):
    """Notes what its turns do to alarms in the commit that does it, and what its alarms do."""

    log: list[list[str]] = attrs.field(factory=list)
    """Name and token of each alarm that a turn has set; no token if it was cancelled."""
    done: list[str] = attrs.field(factory=list)
    """Tokens whose handler came to its end."""
    begun: list[str] = attrs.field(factory=list)
    """Tokens whose handler committed before its end."""

    def set_alarm(self, name: str, after: float, order: Order) -> None:
        self.log.append([name, order.token])
        self.ctx.schedule_alarm(name, after=after, payload=order)

    @handler
    def order(self, name: str, after: float, token: str, plan: str, failures: int) -> None:
        self.set_alarm(name, after, Order(token, plan, failures))

    @handler
    async def order_slowly(
        self, name: str, after: float, token: str, plan: str, failures: int
    ) -> None:
        await anyio.sleep(0.5)
        self.set_alarm(name, after, Order(token, plan, failures))
        await anyio.sleep(0.5)

    @handler
    async def order_and_fail(
        self, name: str, after: float, token: str, plan: str, failures: int
    ) -> None:
        self.set_alarm(name, after, Order(token, plan, failures))
        await self.ctx.commit()
        self.done.append("never")
        self.log.append([name, "never"])
        self.ctx.schedule_alarm(name, after=0, payload=Order("never", "note"))
        raise Refusal

    @handler
    def refuse(self, name: str) -> None:
        self.done.append("never")
        self.ctx.cancel_all_alarms()
        self.ctx.schedule_alarm(name, after=0, payload=Order("never", "note"))
        raise Refusal

    @handler
    def withdraw(self, name: str) -> None:
        self.log.append([name, ""])
        self.ctx.cancel_alarm(name)

    @handler
    def withdraw_all(self) -> None:
        self.log.append([ALL, ""])
        self.ctx.cancel_all_alarms()

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.done

    # --- alarms ----------------------------------------------------------------------------------

    def perform(self, alarm: Alarm) -> Order:
        """What all handlers do, each plan in one turn."""
        order = alarm.payload_as(Order)
        self.done.append(order.token)
        again = f"{order.token}'"
        match order.plan:
            case "again" if order.repeats:
                # At its own time plus a second, as what repeats is to do.
                self.log.append([alarm.name, again])
                at = alarm.due_at + SECOND
                self.ctx.schedule_alarm(alarm.name, at=at, payload=Order(again, order.plan))
            case "another":
                other = "other" if alarm.name == "quick" else "quick"
                self.set_alarm(other, 1, Order(again, "note"))
            case "withdraw":
                other = "other" if alarm.name == "quick" else "quick"
                self.log.append([other, ""])
                self.ctx.cancel_alarm(other)
            case "delete":
                self.ctx.delete()
        if alarm.attempt <= order.failures:
            self.done.append("never")
            raise Refusal
        return order

    @alarm(retry=Retry(initial=1, factor=2, maximum=4))
    def quick(self) -> None:
        assert self.ctx.alarm is not None
        watch[-1].begins(self.ctx.alarm)
        self.perform(self.ctx.alarm)

    @alarm(retry=Retry(initial=1, factor=2, maximum=4))
    async def slow(self) -> None:
        alarm = self.ctx.alarm
        assert alarm is not None
        watch[-1].begins(alarm)
        order = alarm.payload_as(Order)
        if order.token not in self.begun:
            # The alarm stays, so this may be met again, here or in another process.
            self.begun.append(order.token)
            await self.ctx.commit()
        await anyio.sleep(LONG if order.plan == "long" else 0.5)
        self.perform(alarm)
        await anyio.sleep(0.5)
        if order.repeats:
            # Durable with this, so that the alarm is not delivered again.
            await self.ctx.commit()
            self.done.append("never")
            raise Refusal

    async def handle_alarm(self, alarm: Alarm) -> None:
        watch[-1].begins(alarm)
        self.perform(alarm)
        await anyio.lowlevel.checkpoint()


watch: list[History] = []
"""The history that is under way, where handlers find it."""


# --- the storage ---------------------------------------------------------------------------------


class Journal:
    """What the commits have done, and that each is as it must be."""

    def __init__(self) -> None:
        self.armed: dict[tuple[str, str], str] = {}
        """By object and name: the tokens of the alarms that are set."""
        self.effects: Counter[str] = Counter()
        self.last: dict[tuple[str, str], list[str]] = {}
        """By object and name: the tokens that were ever set there."""
        self.outside: Counter[tuple[str, str, str]] = Counter()
        """Object, name and token, or none, of what is being done without a log."""
        self.touched: Counter[tuple[str, str]] = Counter()
        """By object and name, or ALL: how many commits set or removed what is there."""
        self.armed_at: dict[str, int] = {}
        """By token: when it was set."""
        self.plans: dict[str, str] = {}
        """By token."""
        self._states: dict[str, Any] = {}

    def applied(self, commit: Commit, now: int) -> None:
        """Take note of a commit that is durable."""
        object_id, before = commit.key.object_id, dict(self.armed)
        old = self._states.get(object_id, _NOTHING)
        if commit.delete:
            state = self._states[object_id] = _NOTHING
        elif commit.state is not None:
            state = self._states[object_id] = json.loads(commit.state)
        else:
            state = old
        log = _added(old["log"], state["log"])
        done = _added(old["done"], state["done"])
        begun = _added(old["begun"], state["begun"])
        self.effects.update(f"begun {token}" for token in begun)
        assert "never" not in done
        touched: dict[str, str] = {}
        changes = commit.alarms
        acknowledged = set()
        if changes is not None:
            acknowledged = {before.get((object_id, name)) for name in changes.acknowledged}
            for name in changes.acknowledged:
                self.armed.pop((object_id, name), None)
                touched[name] = ""
            if changes.clear:
                for _, name in [slot for slot in self.armed if slot[0] == object_id]:
                    del self.armed[object_id, name]
                    touched[name] = ""
            for name, new in changes.changed.items():
                self.armed.pop((object_id, name), None)
                touched[name] = ""
                if new is not None:
                    order = json.loads(new.payload or b"")
                    token = order["token"]
                    self.plans[token] = order["plan"]
                    touched[name] = self.armed[object_id, name] = token
                    self.armed_at[token] = now
                    self.last.setdefault((object_id, name), []).append(token)
        # An effect and the end of its alarm are one; if the object was deleted after it, within
        # the same commit, only the end is to be seen.
        deleted = changes is not None and changes.clear
        assert set(done) == acknowledged or (deleted and set(done) <= acknowledged)
        self.effects.update(str(token) for token in acknowledged)
        self._check_log(object_id, log, touched, deleted)
        self.touched.update((object_id, name) for name in touched)
        self.touched[object_id, ALL] += deleted
        deleting = any(self.plans.get(str(token)) == "delete" for token in acknowledged)
        for name, token in touched.items():
            was = before.get((object_id, name))
            if token or (was is not None and was not in acknowledged):
                self._check_explained(object_id, name, token, log, deleting)

    def _check_log(
        self, object_id: str, log: list[list[str]], touched: dict[str, str], deleted: bool
    ) -> None:
        """What the state says of alarms has been done to alarms in the same commit."""
        expected: dict[str, str] = {}
        for name, token in log:
            if name == ALL:
                expected = dict.fromkeys(expected, "")
            else:
                expected[name] = token
        for name, token in expected.items():
            assert (
                touched.get(name, "") == token
                or deleted
                or any(self.outside[object_id, n, touched.get(name, "")] for n in (name, ALL))
            )

    def _check_explained(
        self, object_id: str, name: str, token: str, log: list[list[str]], deleted: bool
    ) -> None:
        """What happened to an alarm was asked for."""
        asked = any(self.outside[object_id, n, token] for n in (name, ALL))
        if token:
            assert [name, token] in log or asked
        else:
            assert asked or deleted or any(n in (name, ALL) for n, _ in log)


_NOTHING: dict[str, list[Any]] = {"log": [], "done": [], "begun": []}


def _added(before: list[Any], after: list[Any]) -> list[Any]:
    """What ``after`` has more; all, if the object was deleted in between."""
    if after[: len(before)] == before:
        return after[len(before) :]
    return after


class Storages:
    """What is stored, and the script of what befalls those who work with it."""

    def __init__(self, *, gives_back: bool) -> None:
        self.memory = MemoryStorage()
        self.journal = Journal()
        self.gives_back = gives_back
        """Whether opening gives back what dead runtimes have claimed, or their claims run out."""
        self.calls = 0
        self.kinds: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}
        """By kind of call: whether the next ones fail before or after they have an effect."""
        self.crash_at: tuple[int, str] | None = None
        """The number of the call that is to be the last one, and which part of it happens."""
        self.troubles = 0


class Process(Storage):
    """The storage as one runtime sees it, until it crashes."""

    def __init__(self, storages: Storages) -> None:
        self.storages = storages
        self.crashed = anyio.Event()
        self.is_dead = False

    @property
    def location(self) -> str:
        return ":crashing:"

    def open_writer(self) -> Writer:
        memory = self.storages.memory
        if self.storages.gives_back:
            memory.open_writer().close()
        inner = _JournaledWriter(_MemoryWriter(memory, memory._contents), self.storages.journal)
        return MountedWriter(inner, self.call)

    def open_reader(self) -> Reader:
        return MountedReader(self.storages.memory.open_reader(), self.call)

    def crash(self) -> None:
        self.is_dead = True
        self.crashed.set()

    def call(self, kind: str, work: Callable[[], T]) -> T:
        """Do what the script says: nothing, or all, or both and then fail."""
        storages = self.storages
        if self.is_dead:
            raise StorageFault("the process is dead")
        number = storages.calls
        storages.calls += 1
        storages.kinds[kind] += 1
        part = None
        if storages.crash_at is not None and storages.crash_at[0] == number:
            part = storages.crash_at[1]
            storages.crash_at = None
            self.crash()
        elif storages.faults.get(kind):
            part = storages.faults[kind].pop()
        if part == "before":
            storages.troubles += 1
            raise StorageFault("before it was done")
        result = work()
        if part == "after":
            storages.troubles += 1
            raise StorageFault("after it was done")
        return result


class _JournaledWriter(ForwardingWriter):
    def __init__(self, inner: Writer, journal: Journal) -> None:
        super().__init__(inner)
        self._journal = journal

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = super().commit(batch, now)
        for position, commit in enumerate(batch):
            if position not in stale:
                with _kept():
                    self._journal.applied(commit, now)
        return stale


@contextmanager
def _kept() -> Iterator[None]:
    """Keep a violation for the end: here it would pass for a fault of the storage."""
    try:
        yield
    except AssertionError as error:
        watch[-1].violations.append(error)


# --- histories -----------------------------------------------------------------------------------


class LoopsClock(Clock):
    """Goes as the event loop's own clock, so that the model knows the time as well."""

    @property
    def may_jump(self) -> bool:
        return False

    def now(self) -> int:
        return _START + round(anyio.current_time() * 1e6)

    @staticmethod
    def at(alarm: Alarm) -> int:
        return round(alarm.due_at.timestamp() * 1e6)


_START = 1_700_000_000_000_000


class OldNews(InlineRunner):
    """What was read of the table of alarms arrives a while later."""

    DELAY = 0.5

    async def run(self, job: Callable[[], T]) -> T:
        read = await super().run(job)
        if isinstance(read, list) and read and isinstance(read[0], DueAlarm):
            await anyio.sleep(self.DELAY)
        return read


class History:
    """What happens, and what is known of it."""

    def __init__(
        self, *, gives_back: bool = True, together: int = 1, runner: type[Runner] = InlineRunner
    ) -> None:
        self.storages = Storages(gives_back=gives_back)
        self.journal = self.storages.journal
        self.together = together
        """How many runtimes work on the one storage."""
        self.runner = runner
        self.clock = LoopsClock()
        self.tokens = 0
        self.attempts: Counter[str] = Counter()
        """By token: how often its handler began."""
        self.withdrawn: set[str] = set()
        """Tokens of which somebody was told that they are cancelled or replaced."""
        self.violations: list[BaseException] = []
        self.late = 0.0
        """By how much the latest alarm came after its time, in seconds."""
        self.chosen = 0
        """The number of the runtime that is called."""
        self.calls = 0
        """Of the storage, until nothing is to fail any more."""
        self.runtime: DurableRuntime

    def begins(self, alarm: Alarm) -> None:
        """A handler begins."""
        token = alarm.payload_as(Order).token
        with _kept():
            assert self.together > 1 or token not in self.withdrawn, "withdrawn"
            now, due_at = self.clock.now(), LoopsClock.at(alarm)
            assert due_at <= now, "early"
            self.attempts[token] += 1
            assert alarm.attempt <= self.attempts[token], "an attempt too many, of another alarm"
            since = max(due_at, self.journal.armed_at[token])
            self.late = max(self.late, (now - since) / 1e6)
            # What is durable of it, this process may not know; another one must.
            assert not self.journal.effects[token] or self.storages.troubles, "done"

    async def run(self, operations: Sequence[tuple[Any, ...]]) -> None:
        watch.append(self)
        try:
            # Much more than there can be to wait for: something hangs.
            with anyio.fail_after(100 * PATIENCE):
                await self.live(list(operations))
        finally:
            watch.pop()
            for violation in self.violations:
                raise violation
        self.check()

    async def live(self, rest: list[tuple[Any, ...]]) -> None:
        while rest:
            await self.one_life(rest)
        self.calls = self.storages.calls
        # Nothing fails any more, so all that is set fires.
        self.storages.faults.clear()
        self.storages.crash_at = None
        await self.one_life([("wait", PATIENCE)])

    async def one_life(self, rest: list[tuple[Any, ...]]) -> None:
        """From opening the storage until the next crash, or until it is closed."""
        with anyio.CancelScope() as scope:
            async with AsyncExitStack() as stack:
                processes = [Process(self.storages) for _ in range(self.together)]
                runtimes = [await stack.enter_async_context(self.opened(p)) for p in processes]
                async with anyio.create_task_group() as tasks:
                    for process in processes:
                        tasks.start_soon(self.cancel_at_crash, process, scope)
                    while rest:
                        name, *args = rest.pop(0)
                        if name == "reopen":
                            if args[0]:
                                scope.cancel()
                                await anyio.sleep_forever()
                            break
                        self.runtime = runtimes[self.chosen]
                        await getattr(self, name)(*args)
                    tasks.cancel_scope.cancel()
        self.journal.outside.clear()

    async def cancel_at_crash(self, process: Process, scope: anyio.CancelScope) -> None:
        await process.crashed.wait()
        scope.cancel()

    def opened(self, process: Process) -> DurableRuntime:
        return DurableRuntime(
            process,
            objects=[Clerk],
            runner=self.runner,
            clock=self.clock,
            polling_interval=POLLING_INTERVAL,
            claim_ttl=CLAIM_TTL,
            call_timeout=None,
            max_resident=2,
        )

    def check(self) -> None:
        journal = self.journal
        assert journal.armed == {}
        assert self.storages.memory._contents.alarms.due(2**62, None, 1, lambda _: True) == []
        assert [token for token, times in journal.effects.items() if times > 1] == []
        assert "never" not in journal.armed_at

    # --- what callers do -------------------------------------------------------------------------

    @contextmanager
    def doing(
        self, object_id: str, name: str = "", token: str = "", *, logs: bool = False
    ) -> Iterator[None]:
        """Something that may change alarms, which is known to be done only if it returns.

        It ``logs`` if the commit that does it says so in the state.
        """
        journal, doing = self.journal, (object_id, "" if logs else name, token)
        older = {
            old
            for (other, slot), tokens in journal.last.items()
            if other == object_id and name in (slot, ALL)
            for old in tokens
        }

        def touched() -> int:
            return journal.touched[object_id, name] + journal.touched[object_id, ALL]

        before = touched()
        journal.outside[doing] += 1
        try:
            yield
        except (PersistenceError, RuntimeClosed) as error:
            expected = self.storages.troubles and not isinstance(error, StaleObject)
            if not expected and self.together == 1:
                self.violations.append(error)
            return  # it may be done or not
        except Refusal:
            pass
        else:
            with _kept():
                # One that was replaced before it was written was never there.
                assert not token or token in journal.armed_at or touched() > before, "not durable"
                left = older & set(journal.armed.values())
                assert left <= {token}, "acknowledged, but still set"
            self.withdrawn |= older - {token}
        journal.outside[doing] -= 1

    async def order(
        self, object_id: str, how: str, name: str, after: float, plan: str, failures: int
    ) -> None:
        self.tokens += 1
        token = f"t{self.tokens}"
        if how == "outside":
            order = Order(token, plan, failures)
            with self.doing(object_id, name, token):
                await self.runtime.schedule_alarm(
                    Clerk, object_id, name, after=after, payload=order
                )
            return
        with self.doing(object_id, name, token, logs=True):
            await self.runtime.call(Clerk, object_id, how, name, after, token, plan, failures)

    async def refuse(self, object_id: str, name: str) -> None:
        with self.doing(object_id):
            await self.runtime.get(Clerk, object_id).refuse(name)

    async def withdraw(self, object_id: str, how: str, name: str) -> None:
        with self.doing(object_id, name, logs=how == "withdraw"):
            if how == "outside":
                await self.runtime.cancel_alarm(Clerk, object_id, name)
            else:
                await self.runtime.get(Clerk, object_id).withdraw(name)

    async def withdraw_all(self, object_id: str, how: str) -> None:
        with self.doing(object_id, ALL, logs=how == "withdraw_all"):
            if how == "outside":
                await self.runtime.cancel_all_alarms(Clerk, object_id)
            elif how == "delete":
                await self.runtime.delete(Clerk, object_id)
            else:
                await self.runtime.call(Clerk, object_id, how)

    async def read(self, object_id: str) -> None:
        with self.doing(object_id):
            done = await self.runtime.get(Clerk, object_id).read()
            with _kept():
                assert all(self.journal.effects[token] for token in done), "not durable"

    async def stop(self, object_id: str) -> None:
        with self.doing(object_id):
            await self.runtime.stop(Clerk, object_id)

    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def burst(self, operations: list[tuple[Any, ...]]) -> None:
        """Several of these together."""
        async with calls() as group:
            outcomes = [group.start(getattr(self, name), *args) for name, *args in operations]
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error

    async def choose(self, number: int) -> None:
        self.chosen = number

    # --- what befalls them -----------------------------------------------------------------------

    async def fail(self, kinds: list[tuple[str, str]]) -> None:
        for kind, part in kinds:
            self.storages.faults.setdefault(kind, []).append(part)

    async def crash(self, soon: int, part: str) -> None:
        self.storages.crash_at = self.storages.calls + soon, part


def run(backend: str, history: History, operations: Sequence[tuple[Any, ...]]) -> None:
    options: dict[str, Any] = (
        {"clock": MockClock(autojump_threshold=0)}
        if backend == "trio"
        else {"loop_factory": VirtualTimeLoop}
    )
    anyio.run(history.run, operations, backend=backend, backend_options=options)

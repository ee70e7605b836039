"""What callers do: draw an object, something to do to it, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from random import Random
from typing import Any

import anyio

from trio_durable import DurableError

from .effects import Ordered
from .history import Key
from .models import Alarms
from .objects import Clerk, Counter, Ledger, Order, Refused, Register
from .world import Process, Slot, World

IDS = {"Register": "ab", "Counter": "ab", "Ledger": "abc", "Clerk": "abc"}
_TIMEOUTS = [None, None, None, 0.05, 0.5, 3]
_NAMES = ["quick", "quick", "slow", "slow", "other"]
_PLANS = ["note"] * 7 + ["again", "again", "withdraw", "erase"]
_PATIENCE = 0.5
"""The timeout of those that only look."""
_DELAYS = [0, 0, 0.01, 0.3, 1, 1, 2.5, 8]


class Caller:
    """One of many, in a task of its own."""

    def __init__(self, world: World, seed: int, number: int) -> None:
        self._world = world
        self._rng = Random(f"{seed} caller {number}")
        self._name = f"c{number}"
        # A member that doesn't reach its storage still has what its objects are, and callers that
        # change something wait for it.
        self._only_looks = world.is_cluster and number % 3 == 0
        self._timeouts = [0.05, 0.5, 0.5, 3] if world.is_cluster else _TIMEOUTS
        self._counts = count(1)
        self._last_seen = ""

    async def run(self) -> None:
        """Make one call after the other."""
        rng = self._rng
        acts = [self._register, self._counter, self._ledger, self._clerk, self._clerk]
        if self._world.is_cluster:
            acts += [self._change] * 5
        for _ in range(self._world.setting.operations):
            await anyio.sleep(rng.choice([0, 0, 0, 0.01, 0.1, 1]))
            process = await rng.choice(self._slots()).up()
            if self._only_looks:
                await self._look_around(process)
            else:
                act = rng.choice(acts)
                await self._attempt(process, act)

    def _slots(self) -> list[Slot]:
        """Where a caller may be. Those of a cluster go to a member that is up."""
        slots = self._world.slots
        if not self._world.is_cluster:
            return slots
        return [each for each in slots if each.process and each.process.is_ready] or slots

    async def _attempt(self, process: Process, act: Callable[[Process], Awaitable[object]]) -> None:
        """Call, and be gone when the process is, or when this caller has had enough."""
        patience = self._rng.choice([float("inf")] * 9 + [0, 0.001, 0.02, 0.3, 1])
        with anyio.move_on_after(patience) as scope:
            process.callers.add(scope)
            try:
                await act(process)
            except (DurableError, Refused):
                pass
            except Exception as error:
                if error not in self._world.surprises:
                    raise
            finally:
                process.callers.discard(scope)

    def _new(self) -> str:
        """What nobody has ever written before."""
        return f"{self._name}.{next(self._counts)}"

    async def _tell(
        self,
        process: Process,
        key: Key,
        name: str,
        args: tuple[object, ...],
        call: Callable[[int], Awaitable[object]],
        *,
        from_outside: bool = False,
    ) -> Any:
        history = self._world.history
        number = history.invoke(process, key, name, *args, has_begun=from_outside)
        return await self._world.tell(number, key, call(number))

    def _key(self, type_name: str) -> Key:
        return Key(type_name, self._rng.choice(IDS[type_name]))

    # --- what there is to do ---------------------------------------------------------------------

    async def _change(self, process: Process) -> None:
        """Change an object, plainly."""
        key, new = self._key(self._rng.choice(["Register", "Ledger"])), self._new()
        if key.type_name == "Register":
            register = process.runtime.get(Register, key.object_id, timeout=_PATIENCE)
            await self._tell(process, key, "write", (new,), lambda n: register.write(n, new))
        else:
            ledger = process.runtime.get(Ledger, key.object_id, timeout=_PATIENCE)
            await self._tell(process, key, "append", (new,), lambda n: ledger.append(n, new))

    async def _look_around(self, process: Process) -> None:
        """Read several objects through one process."""
        rng = self._rng
        for _ in range(rng.choice([1, 10])):
            if process.is_ready:
                await self._attempt(process, self._look)
                await anyio.sleep(rng.choice([0, 0.1, 0.3]))

    async def _look(self, process: Process) -> None:
        """Read an object."""
        key, runtime = self._key(self._rng.choice(list(IDS))), process.runtime
        reads: dict[str, Any] = {
            "Register": runtime.get(Register, key.object_id, timeout=_PATIENCE).read,
            "Counter": runtime.get(Counter, key.object_id, timeout=_PATIENCE).read,
            "Ledger": runtime.get(Ledger, key.object_id, timeout=_PATIENCE).read,
            "Clerk": runtime.get(Clerk, key.object_id, timeout=_PATIENCE).read,
        }
        await self._tell(process, key, "read", (), reads[key.type_name])

    async def _register(self, process: Process) -> None:
        rng, runtime = self._rng, process.runtime
        key, new = self._key("Register"), self._new()
        register = runtime.get(Register, key.object_id, timeout=rng.choice(self._timeouts))
        match rng.randrange(17):
            case 0 | 1 | 2:
                await self._tell(process, key, "write", (new,), lambda n: register.write(n, new))
            case 3 | 4:
                await self._tell(
                    process, key, "write", (new,), lambda n: register.write_slowly(n, new)
                )
            case 5 | 6:
                old = self._last_seen
                await self._tell(
                    process, key, "swap", (old, new), lambda n: register.swap(n, old, new)
                )
            case 7 | 8:
                self._last_seen = await self._tell(process, key, "read", (), register.read)
            case 9:
                await self._tell(process, key, "read", (), register.read_slowly)
            case 10 | 11 | 12:
                await self._tell(
                    process, key, "write", (new,), lambda n: register.write_and_fail(n, new)
                )
            case 13:
                await self._tell(
                    process, key, "write", (new,), lambda n: register.write_slowly_and_fail(n, new)
                )
            case 14:
                await self._tell(process, key, "write", (new,), lambda n: register.cheat(n, new))
            case _:
                await self._erase(process, key, Register, register.erase)

    async def _erase(
        self, process: Process, key: Key, cls: Any, erase: Callable[[int], Awaitable[None]]
    ) -> None:
        if self._rng.random() < 0.5:
            await self._tell(process, key, "erase", (), erase)
        else:
            delete = process.runtime.delete
            await self._tell(
                process, key, "erase", (), lambda n: delete(cls, key.object_id), from_outside=True
            )

    async def _counter(self, process: Process) -> None:
        rng = self._rng
        key, by = self._key("Counter"), rng.randrange(1, 2**40)
        counter = process.runtime.get(Counter, key.object_id, timeout=rng.choice(self._timeouts))
        match rng.randrange(7):
            case 0 | 1:
                await self._tell(process, key, "add", (by,), lambda n: counter.add(n, by))
            case 2 | 3:
                await self._tell(process, key, "add", (by,), lambda n: counter.add_slowly(n, by))
            case 4 | 5:
                fails = rng.random() < 0.3
                await self._tell(
                    process, key, "add", (by,), lambda n: counter.add_in_two(n, by, fails)
                )
            case _:
                await self._tell(process, key, "read", (), counter.read)

    async def _ledger(self, process: Process) -> None:
        rng = self._rng
        key, name = self._key("Ledger"), self._new()
        ledger = process.runtime.get(Ledger, key.object_id, timeout=rng.choice(self._timeouts))
        match rng.randrange(6):
            case 0 | 1 | 2:
                await self._tell(process, key, "append", (name,), lambda n: ledger.append(n, name))
            case 3 | 4:
                # Itself, as well, which is a circle.
                other = self._world.forwarded[name] = rng.choice(IDS["Ledger"])
                await self._tell(
                    process, key, "append", (name,), lambda n: ledger.forward(n, name, other)
                )
            case _:
                await self._tell(process, key, "read", (), ledger.read)

    async def _clerk(self, process: Process) -> None:
        rng, runtime = self._rng, process.runtime
        key = self._key("Clerk")
        clerk = runtime.get(Clerk, key.object_id, timeout=rng.choice(self._timeouts))
        name = rng.choice(_NAMES)
        match rng.randrange(18):
            case 0 | 1 | 2 | 3 | 4:
                calls = [clerk.order, clerk.order, clerk.order_slowly, clerk.order_and_fail]
                await self._order(process, key, name, rng.choice(calls))
            case 5 | 6 | 7 | 8 | 9:
                await self._order(process, key, name, None)
            case 10 | 11:
                await self._tell(
                    process, key, "withdraw", (name,), lambda n: clerk.withdraw(n, name)
                )
            case 12 | 13:
                cancel = runtime.cancel_alarm
                await self._tell(
                    process,
                    key,
                    "disarm",
                    (name,),
                    lambda n: cancel(Clerk, key.object_id, name),
                    from_outside=True,
                )
            case 14:
                cancel_all = runtime.cancel_all_alarms
                await self._tell(
                    process,
                    key,
                    "disarm_all",
                    (),
                    lambda n: cancel_all(Clerk, key.object_id),
                    from_outside=True,
                )
            case 15:
                await self._tell(process, key, "read", (), clerk.read)
            case 16:
                await self._tell(process, key, "alarms", (), lambda n: self._alarms(process, key))
            case _:
                if rng.random() < 0.5:
                    await self._erase(process, key, Clerk, clerk.erase)
                else:
                    with suppress(DurableError):
                        await runtime.stop(Clerk, key.object_id)

    async def _order(
        self,
        process: Process,
        key: Key,
        name: str,
        call: Callable[[int, str, float, Order], Awaitable[object]] | None,
    ) -> None:
        world, rng = self._world, self._rng
        after, plan, token = rng.choice(_DELAYS), rng.choice(_PLANS), self._new()
        order = Order(token, plan, rng.choice([0, 0, 0, 1, 2]))
        schedule = process.runtime.schedule_alarm
        due_at = world.clock.now() + round(after * 1e6)
        name_of = "arm" if call is None else "order"
        number = world.history.invoke(process, key, name_of, name, token, has_begun=call is None)
        by = world.history.operation(number)
        world.ordered[token] = Ordered(key, name, token, due_at, by)
        world.plans[token] = plan
        if call is None:
            done: Awaitable[object] = schedule(
                Clerk, key.object_id, name, after=after, payload=order
            )
        else:
            done = call(number, name, after, order)
        await world.tell(number, key, done)

    async def _alarms(self, process: Process, key: Key) -> Alarms:
        listed = await process.runtime.list_alarms(Clerk, key.object_id)
        found = [(each.name, each.payload_as(Order).token) for each in listed]
        return tuple(sorted(found))

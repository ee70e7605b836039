"""`simulate`: runs the world of a seed to its end, and judges what happened in it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from time import perf_counter
from typing import Any
from unittest.mock import patch

import anyio
import attrs
import orjson

from trio_durable import MemoryStorage
from trio_durable._activations import calls, tenure
from trio_durable._cluster import endpoint, links
from trio_durable._persistence import group_commit
from trio_durable._runtime import open_runtime
from trio_durable.storage import Storage
from trio_durable.storage import _membership as membership

from . import objects
from .callers import IDS, Caller
from .checker import NotLinearizable, TooHard, check_linearizable
from .cluster_history import ClusterHistory
from .effects import EffectsViolated, check_effects
from .history import Key, Operation
from .members import TTL
from .models import ClerkModel, CounterModel, LedgerModel, ObjectModel, RegisterModel
from .objects import Clerk, Counter, Ledger, Order, Register
from .schedule import run
from .world import Process, Setting, World

KINDS = ("file", "server", "pair")
_OF_MEMBERS = 0.7
"""The part of disturbances that only members of a cluster notice."""
_QUIET = 600
"""Seconds after which everything has fired."""
MODELS: dict[str, Callable[[list[Operation]], ObjectModel]] = {
    "Register": RegisterModel,
    "Counter": CounterModel,
    "Ledger": LedgerModel,
    "Clerk": ClerkModel,
}


class Violation(AssertionError):
    """What callers were told, or what is stored in the end, is not as it must be."""


class Misplaced(AssertionError):
    """What one object did depends on what another one doesn't know to have done."""


class Undecided(AssertionError):
    """There are so many ways in which it may have come about that nobody has tried all."""


class Broken(AssertionError):
    """The simulation didn't come to its end, or somebody met an error that nobody knows."""


@attrs.frozen
class Report:
    """What there was in one simulation, of which all was as it must be."""

    seed: int
    kind: str
    operations: int
    unknown: int
    crashes: int
    faults: int
    alarms: int
    """Effects of alarms."""
    attempts: int
    """How often handlers of alarms began."""
    histories: int
    seconds: float
    leases_lost: int
    cuts: int
    """Links that were cut."""
    moves: int
    """How often a shard got another owner, in a cluster."""
    forwarded: int
    """How many requests members have sent to others."""
    digest: int
    """The same whenever it is the same story."""


def draw(seed: int, *, callers: int | None = None, operations: int | None = None) -> Setting:
    """The setting of a seed."""
    rng = Random(f"{seed} setting")
    return Setting(
        kind=KINDS[seed % len(KINDS)],
        callers=callers or rng.choice([6, 12, 20]),
        operations=operations or 30,
        crash=rng.choice([0, 0.01, 0.03]),
        failure=rng.choice([0, 0.01, 0.05]),
        lost=0 if seed % len(KINDS) == 0 else rng.choice([0, 0.01, 0.02]),
        max_resident=rng.choice([2, 4, 1000]),
        unrest=rng.choice([1, 5, 30]),
    )


def draw_cluster(
    seed: int, *, callers: int | None = None, operations: int | None = None
) -> Setting:
    """The setting of a seed, for members of a cluster.

    Connections to the storage don't break with a commit on its way: a member's next commit waits
    for the end of the one before, which is PostgreSQL's matter.
    """
    rng = Random(f"{seed} cluster")
    return Setting(
        kind="cluster",
        callers=callers or rng.choice([12, 20]),
        operations=operations or 30,
        crash=rng.choice([0, 0.01, 0.03]),
        failure=rng.choice([0, 0.01, 0.05]),
        lost=0,
        max_resident=rng.choice([4, 1000, 1000]),
        unrest=rng.choice([0.5, 1, 2]),
        max_calls=rng.choice([2, 1024]),
    )


def simulate(
    seed: int,
    *,
    storage: Storage | None = None,
    backend: str = "trio",
    cluster: bool = False,
    callers: int | None = None,
    operations: int | None = None,
) -> Report:
    """Run the world of a seed and judge it.

    Args:
        seed: The seed.
        storage: What keeps what is stored; memory, if it isn't given.
        backend: The event loop, one of `BACKENDS`.
        cluster: Whether the processes are members of a cluster.
        callers: How many, instead of what the seed draws.
        operations: How many of each caller, likewise.

    Raises:
        Violation: It is not as it must be.
        Undecided: It may be, or not.
        Broken: It came to nothing.
    """
    began = perf_counter()
    setting = (draw_cluster if cluster else draw)(seed, callers=callers, operations=operations)
    with _in_virtual_time(seed) as holder:
        world = World(seed, setting, storage or MemoryStorage())
        holder.append(world)
        told = f"seed {seed} ({setting})"
        try:
            run(backend, seed, _live, world, seed)
            found = _judge(world)
            if world.surprises:
                raise world.surprises[0]
        except (NotLinearizable, EffectsViolated, Misplaced) as error:
            raise Violation(f"{told}: {_told(error)}") from error
        except TooHard as error:
            raise Undecided(f"{told}: {_told(error)}") from error
        except Exception as error:
            raise Broken(f"{told}: {_told(error)}") from error
        finally:
            world.database.close()
    operations_done = world.history.operations
    return Report(
        seed=seed,
        kind=setting.kind,
        operations=len(operations_done),
        unknown=sum(each.known == "unknown" for each in operations_done),
        crashes=world.crashes,
        faults=world.faults,
        alarms=found,
        attempts=sum(len(each.attempts) for each in world.ordered.values()),
        histories=len(list(world.history.by_object())),
        seconds=perf_counter() - began,
        leases_lost=world.leases_lost,
        cuts=world.cuts,
        moves=sum(world.members.terms),
        forwarded=world.requests,
        digest=_digest(operations_done),
    )


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _digest(operations: list[Operation]) -> int:
    told = "\n".join(f"{each.key} {each}" for each in operations)
    return int.from_bytes(told.encode(), "big") % (2**61 - 1)


@contextmanager
def _in_virtual_time(seed: int) -> Iterator[list[World]]:
    """Let nothing depend on real time, or be drawn that the seed doesn't say."""
    worlds: list[World] = []
    rng = Random(f"{seed} pace")
    elapsed = 0.0

    def virtual_perf_counter() -> float:
        # By which the group commit decides how much goes into a batch.
        nonlocal elapsed
        elapsed += rng.choice([0, 1e-6, 1e-3])
        return elapsed

    def running_loop() -> Any:
        process = worlds[-1].opening
        assert process is not None
        return process.new_loop()

    state = random.getstate()
    random.seed(seed)
    with ExitStack() as stack:
        for owner, name, instead in (
            (group_commit, "perf_counter", virtual_perf_counter),
            (group_commit, "sleep", lambda seconds: None),
            (open_runtime, "running_loop", running_loop),
            # The time of leases.
            *((module, "boot_time", anyio.current_time) for module in (calls, tenure, membership)),
            (endpoint, "listen", lambda address: worlds[-1].wires.listen(address)),
            (links, "dial", lambda address, tls: worlds[-1].wires.dial(address)),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        for name in ("", ".alarms", ".cluster"):
            logger = logging.getLogger(f"trio_durable{name}")
            stack.enter_context(patch.object(logger, "disabled", True))  # there are hundreds
        try:
            yield worlds
        finally:
            random.setstate(state)


# --- the story -----------------------------------------------------------------------------------


async def _live(world: World, seed: int) -> None:
    objects.world = world
    setting = world.setting
    with anyio.fail_after(100_000):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(world.network.run)
            async with anyio.create_task_group() as tasks:
                for slot in world.slots:
                    tasks.start_soon(slot.run)
                async with anyio.create_task_group() as unrest:
                    unrest.start_soon(_disturb, world)
                    async with anyio.create_task_group() as callers:
                        for number in range(setting.callers):
                            callers.start_soon(Caller(world, seed, number).run)
                    unrest.cancel_scope.cancel()
                for slot in world.slots:
                    slot.end()
            await _come_to_rest(world)
            nursery.cancel_scope.cancel()


async def _disturb(world: World) -> None:
    """From time to time, something happens to a process or to the clock."""
    rng = world.rng
    while True:
        await anyio.sleep(rng.uniform(0, 2 * world.setting.unrest))
        slot = rng.choice(world.slots)
        if world.is_cluster and slot.process is not None and rng.random() < _OF_MEMBERS:
            _disturb_member(world, slot.process)
            continue
        match rng.randrange(4):
            case 0:
                world.clock.jump(rng.choice([-20, -2, -0.5, 0.5, 2, 10]))
            case 1 if slot.process is not None:
                slot.process.close()
            case _ if slot.process is not None:
                slot.process.crash()


def _disturb_member(world: World, process: Process) -> None:
    """Something happens that only members of a cluster notice."""
    rng = world.rng
    seconds = rng.uniform(0, 6 * TTL)
    match rng.randrange(8):
        case 0:
            process.cut_links()
        case 1:
            process.crash(with_machine=True)
        case 2:  # it doesn't reach the others
            process.hold(0, seconds)
        case 3:  # it stands still, but for its turns
            process.hold(seconds, seconds)
        case _:  # it doesn't reach the storage
            process.hold(seconds, 0)


async def _come_to_rest(world: World) -> None:
    """Nothing fails any more and nobody asks for anything, so everything that is set fires."""
    world.is_faulty = world.network.is_slow = False
    slot = world.slots[0]
    slot.is_over = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slot.run)
        process = await slot.up()
        with anyio.move_on_after(_QUIET):
            while world.database.alarms():
                await anyio.sleep(1)
        await anyio.sleep(5)
        await _inspect(world, process)
        slot.end()


async def _inspect(world: World, process: Process) -> None:
    """Read everything, as the last caller."""
    runtime = process.runtime

    async def read(key: Key, name: str, call: Callable[[int], Any]) -> None:
        number = world.history.invoke(process, key, name)
        await world.tell(number, key, call(number))

    for object_id in IDS["Register"]:
        await read(Key("Register", object_id), "read", runtime.get(Register, object_id).read)
    for object_id in IDS["Counter"]:
        await read(Key("Counter", object_id), "read", runtime.get(Counter, object_id).read)
    for object_id in IDS["Ledger"]:
        await read(Key("Ledger", object_id), "read", runtime.get(Ledger, object_id).read)
    for object_id in IDS["Clerk"]:
        key = Key("Clerk", object_id)
        await read(key, "read", runtime.get(Clerk, object_id).read)
        listed = await runtime.list_alarms(Clerk, object_id)
        alarms = tuple(sorted((each.name, each.payload_as(Order).token) for each in listed))
        number = world.history.invoke(process, key, "inspect")
        world.history.succeed(number, (stored_list(world, key, "fired"), alarms))


def stored_list(world: World, key: Key, field: str) -> tuple[str, ...]:
    """A field that is a list, as it is stored."""
    rows = world.database.reader.browse_objects(key.type_name, None, 1000)
    for row in rows:
        if row.key.object_id == key.object_id:
            return tuple(orjson.loads(row.state)[field])
    return ()


# --- the judgement -------------------------------------------------------------------------------


def _judge(world: World) -> int:
    """Check all that was recorded; how many effects of alarms there are in the end."""
    history = world.history
    if isinstance(history, ClusterHistory):
        history.end()
    for key, operations in history.by_object():
        model = MODELS[key.type_name](operations)
        if world.setting.kind == "pair":
            operations = [_perhaps_stale(model, each) for each in operations]
        try:
            check_linearizable(model, model.simplified(operations))
        except AssertionError as error:
            raise type(error)(f"{key.type_name} {key.object_id}: {error}") from None
    ledgers = {
        Key("Clerk", object_id): stored_list(world, Key("Clerk", object_id), "fired")
        for object_id in IDS["Clerk"]
    }
    left = [
        (Key(each.key.type_name, each.key.object_id), each.key.name)
        for each in world.database.alarms()
    ]
    check_effects(world.ordered.values(), history.operations, ledgers, left)
    _check_forwarded(world)
    return sum(map(len, ledgers.values()))


def _perhaps_stale(model: ObjectModel, operation: Operation) -> Operation:
    """What another owner has written, one that only reads may not know yet.

    What it sees was there at some time, though, and never what wasn't durable.
    """
    if operation.known != "ok" or operation.name not in ("read", "see", "swap"):
        return operation
    if not model.only_reads(operation):
        return operation
    return attrs.evolve(operation, start=0)


def _check_forwarded(world: World) -> None:
    """What a ledger has forwarded was durable at the other one before it was here."""
    names = {each: stored_list(world, Key("Ledger", each), "names") for each in IDS["Ledger"]}
    for here, stored in names.items():
        for name in stored:
            there = world.forwarded.get(name)
            if there is not None and f"{name} of {here}" not in names[there]:
                raise Misplaced(f"{here} has forwarded {name}, but {there} doesn't have it")

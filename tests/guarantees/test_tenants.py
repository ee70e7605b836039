"""Tenants: the same type and id under another name is another object, in everything."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.carts import Cart, Strict, everybody, opened, rung, stored
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    ActivationFailed,
    ArgumentError,
    CallCycle,
    CallTimeout,
    InvalidAlarm,
    InvalidObjectId,
    InvalidTenant,
    MemoryStorage,
    ObjectKey,
    ObjectNotRunning,
    Objects,
    PersistenceError,
    ReadonlyViolation,
    StateEncodeError,
    Tenant,
    current_runtime,
)
from trio_durable.storage import StorageFault
from trio_durable.testing import (
    all_scheduled_alarms,
    assert_alarm_scheduled,
    assert_persisted,
    drain_alarms,
    fire_alarm,
    get_persisted_state,
    refute_alarm_scheduled,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _fresh() -> None:
    rung.clear()


# --- what a name of a tenant may be --------------------------------------------------------------


class Name(str, enum.Enum):  # noqa: UP042 - a StrEnum formats as its value
    """As configurations have them; its format() isn't its value."""

    ACME = "acme"


class Text(str):
    """Shows itself as something else."""

    def __str__(self) -> str:
        return "something else"

    __repr__ = __str__


@pytest.mark.parametrize("name", [Name.ACME, Text("acme")], ids=["enum", "subclass"])
async def test_of_a_str_subclass_only_the_text_counts(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / "objects.db") as runtime:
        tenant = runtime.tenant(name)
        assert type(tenant.name) is str
        assert tenant.name == "acme"
        assert runtime.tenant("acme") is tenant
        await tenant.get(Cart, "a").add("tea")
        assert await runtime.list_tenants() == ["acme"]
        assert await runtime.list_tenants(after=name) == []
        assert await runtime.drop_tenant(name)
        assert await runtime.list_tenants() == []
        # Its rows are gone as well, not only its name.
        assert await runtime.tenant("acme").get(Cart, "a").add("milk") == ["milk"]
        assert await runtime.drop_tenant("acme")


BAD_NAMES: list[object] = [
    "",
    "x" * 49,
    "Acme",
    "ACME",
    "-acme",
    "_acme",
    "a cme",
    "acme ",
    "acme\n",
    "acme\0",
    "acme\0x",
    "\0",
    "a.b",
    "a/b",
    "a:b",
    'a"b',
    "a'b",
    "a;b",
    "a%b",
    "é",
    "\u0661",
    "\uff41",
    "\ud800",
    None,
    5,
    b"acme",
    ["acme"],
    {},
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_what_cannot_be_a_name(name: Any) -> None:
    async with opened() as runtime:
        with pytest.raises(InvalidTenant, match="1 to 48 lowercase letters") as caught:
            runtime.tenant(name)
        assert caught.value.tenant == f"{name!r:.80}"
        with pytest.raises(InvalidTenant):
            await runtime.drop_tenant(name)
        if name:
            with pytest.raises(InvalidTenant):
                await runtime.list_tenants(after=name)
        assert await runtime.list_tenants() == []


async def test_what_can_be_a_name() -> None:
    async with opened() as runtime:
        names = ["0", "a", "a-", "a_", "0-_z", "x" * 48]
        for name in names:
            assert runtime.tenant(name).name == name
            await runtime.tenant(name).get(Cart, "a").add(name)
        assert await runtime.list_tenants() == sorted(names)


# --- identity ------------------------------------------------------------------------------------


async def test_the_same_type_and_id_under_another_tenant_is_another_object() -> None:
    async with opened() as runtime:
        for n, objects in enumerate(everybody(runtime)):
            assert await objects.get(Cart, "a").read() == []
            assert await objects.get(Cart, "a").add(f"{n}") == [f"{n}"]
        for n, objects in enumerate(everybody(runtime)):
            assert await objects.get(Cart, "a").read() == [f"{n}"]
            assert await stored(objects) == [f"{n}"]
        assert runtime.count_objects() == 3


@pytest.mark.parametrize("how", ["hibernated", "evicted", "stopped", "reopened"])
async def test_they_stay_apart_when_they_come_back_into_memory(how: str) -> None:
    storage = MemoryStorage()
    options: dict[str, Any] = {"max_resident": 1} if how == "evicted" else {}
    async with opened(storage, **options) as runtime:
        for n, objects in enumerate(everybody(runtime)):
            await objects.get(Cart, "a").add(f"{n}")
        if how == "evicted":
            assert runtime.count_objects() == 1
        elif how == "hibernated":
            await anyio.sleep(11)
            for objects in everybody(runtime):
                info = objects.whereis(Cart, "a")
                assert info is not None
                assert info.status == "hibernated"
        elif how == "stopped":
            for objects in everybody(runtime):
                await objects.stop(Cart, "a")
                assert objects.whereis(Cart, "a") is None
        if how != "reopened":
            for n, objects in enumerate(everybody(runtime)):
                assert await objects.get(Cart, "a").add("more") == [f"{n}", "more"]
    async with opened(storage, **options) as runtime:
        more = [] if how == "reopened" else ["more"]
        for n, objects in reversed(list(enumerate(everybody(runtime)))):
            assert await objects.get(Cart, "a").read() == [f"{n}", *more]


async def test_everything_that_can_be_asked_and_done_is_of_one_tenant() -> None:
    async with opened() as runtime:
        common, acme, beta = everybody(runtime)
        for objects in (common, beta):
            await objects.get(Cart, "a").add("theirs")
            await objects.schedule_alarm(Cart, "a", "ring", after=1000)
            await objects.schedule_alarm(Cart, "a", "fail", after=0.1)
        await anyio.sleep(1)  # so that they have dead letters

        async def of_others() -> None:
            for objects in (common, beta):
                tenant = "beta" if objects is beta else ""
                key = ObjectKey("Cart", "a", tenant)
                assert await objects.get(Cart, "a").read() == ["theirs"]
                info = objects.whereis(Cart, "a")
                assert info is not None
                assert (info.key, info.revision) == (key, 1)
                assert await objects.exists(Cart, "a")
                assert (await objects.get_state(Cart, "a")).items == ["theirs"]
                assert await objects.list_objects(Cart) == ["a"]
                assert [(a.key, a.name) for a in await objects.list_alarms(Cart, "a")] == [
                    (key, "ring")
                ]
                assert [(a.key, a.name) for a in await objects.list_dead_letters(Cart)] == [
                    (key, "fail")
                ]
                await assert_persisted(objects, Cart, "a", items=["theirs"])

        await of_others()
        # Nothing of that is seen by the third.
        assert acme.whereis(Cart, "a") is None
        assert not await acme.exists(Cart, "a")
        with pytest.raises(ObjectNotRunning, match="of tenant acme"):
            await acme.get_state(Cart, "a")
        assert await acme.list_objects(Cart) == []
        assert await acme.list_alarms(Cart, "a") == []
        assert await acme.list_dead_letters(Cart) == []
        assert await acme.retry_alarm(Cart, "a", "fail") is False
        assert await stored(acme) is None
        assert await runtime.list_tenants() == ["beta"]
        # And nothing that it does is done to them.
        info = await acme.ensure_started(Cart, "a")
        assert (info.key, info.revision) == (ObjectKey("Cart", "a", "acme"), 0)
        await acme.put_state(Cart, "a", Cart(items=["put"]))
        await of_others()
        assert await acme.call("Cart", "a", "add", "by name") == ["put", "by name"]
        assert (await acme.get_state(Cart, "a")).items == ["put", "by name"]
        await acme.schedule_alarm(Cart, "a", "ring", after=2000)
        await acme.schedule_alarm(Cart, "b", "ring", after=2000)
        await of_others()
        await acme.cancel_alarm(Cart, "a", "ring")
        await acme.cancel_alarm(Cart, "a", "fail")
        await of_others()
        await acme.cancel_all_alarms(Cart, "a")
        await acme.stop(Cart, "a")
        await of_others()
        assert await runtime.list_tenants() == ["acme", "beta"]
        await acme.delete(Cart, "a")
        await of_others()
        assert not await acme.exists(Cart, "a")
        assert await acme.list_objects(Cart) == []
        assert len(await acme.list_alarms(Cart, "b")) == 1
        assert await runtime.drop_tenant("acme")
        await of_others()


async def test_a_hundred_first_calls_to_each_of_some_tenants_load_once_each() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("reader"):
            for objects in everybody(runtime):
                for _ in range(100):
                    group.start(objects.get(Cart, "a").read)
            await settle()
        await settle()
        assert sorted(map(str, [key for keys in storage.loads for key in keys])) == [
            "Cart('a')",
            "Cart('a') of tenant acme",
            "Cart('a') of tenant beta",
        ]


async def test_pages_of_a_tenants_objects_and_dead_letters() -> None:
    async with opened() as runtime:
        for objects in everybody(runtime):
            for n in range(5):
                await objects.get(Cart, f"{n}").remind("fail", 0)
                await objects.get(Cart, f"{n}").add("tea")
        await anyio.sleep(1)
        acme = runtime.tenant("acme")
        assert await acme.list_objects(Cart, limit=2) == ["0", "1"]
        assert await acme.list_objects(Cart, after="1", limit=2) == ["2", "3"]
        assert await acme.list_objects(Cart, after="3", limit=2) == ["4"]
        first = await acme.list_dead_letters(Cart, limit=2)
        assert [dead.key for dead in first] == [ObjectKey("Cart", f"{n}", "acme") for n in (0, 1)]
        rest = await acme.list_dead_letters(Cart, after=first[-1])
        assert [dead.key.object_id for dead in rest] == ["2", "3", "4"]


async def test_pages_of_tenants() -> None:
    async with opened() as runtime:
        names = [f"t{n:02}" for n in range(25)]
        for name in reversed(names):
            await runtime.tenant(name).get(Cart, "a").add("tea")
        assert await runtime.list_tenants() == names
        assert await runtime.list_tenants(limit=10) == names[:10]
        assert await runtime.list_tenants(after="t09", limit=10) == names[10:20]
        assert await runtime.list_tenants(after="t19", limit=10) == names[20:]
        assert await runtime.list_tenants(after="t24") == []
        for limit in (0, -1, True, 1.5, None):
            with pytest.raises(ValueError, match="limit must be"):
                await runtime.list_tenants(limit=limit)  # type: ignore[arg-type]


async def test_a_tenant_is_there_once_something_of_it_was_stored(tmp_path: Path) -> None:
    async with opened(tmp_path / "objects.db") as runtime:
        looked = runtime.tenant("looked")
        assert await looked.get(Cart, "a").read() == []
        assert await looked.list_objects(Cart) == []
        await looked.cancel_all_alarms(Cart, "a")
        await looked.delete(Cart, "a")
        assert await runtime.list_tenants() == []
        await runtime.tenant("alarm").schedule_alarm(Cart, "a", "ring", after=1)
        await runtime.tenant("put").put_state(Cart, "a", Cart())
        await runtime.tenant("turn").get(Cart, "a").add("tea")
        assert await runtime.list_tenants() == ["alarm", "put", "turn"]
        # And stays, empty as it may be, until it is dropped.
        await runtime.tenant("turn").get(Cart, "a").clear()
        assert await runtime.list_tenants() == ["alarm", "put", "turn"]


async def test_what_a_tenant_says_of_itself() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        assert isinstance(acme, Tenant)
        assert acme.name == "acme"
        assert acme.root is runtime
        assert runtime.root is runtime
        assert runtime.tenant("acme") is acme
        assert repr(acme) == "<tenant acme of <DurableRuntime on :memory:>>"
        assert acme.count_objects() == runtime.count_objects() == 0


async def test_handles_are_equal_if_they_are_of_one_object() -> None:
    async with opened() as runtime:
        handles = [objects.get(Cart, "a") for objects in everybody(runtime)]
        again = [objects.get("Cart", "a") for objects in everybody(runtime)]
        assert handles == again
        assert len({*handles, *again}) == 3
        assert handles[0] != handles[1] != handles[2]
        assert handles[1] != runtime.tenant("acme").get(Cart, "b")
        assert list(map(repr, handles)) == [
            "<handle of Cart('a')>",
            "<handle of Cart('a') of tenant acme>",
            "<handle of Cart('a') of tenant beta>",
        ]


def operations_on(objects: Objects, one: str) -> list[Callable[[], Any]]:
    """All that can be done with an object of that id, and awaited."""
    return [
        lambda: objects.call("Cart", one, "read"),
        lambda: Cart.read(one),
        lambda: objects.ensure_started(Cart, one),
        lambda: objects.stop(Cart, one),
        lambda: objects.get_state(Cart, one),
        lambda: objects.put_state(Cart, one, Cart()),
        lambda: objects.exists(Cart, one),
        lambda: objects.delete(Cart, one),
        lambda: objects.list_objects(Cart, after=one),
        lambda: objects.schedule_alarm(Cart, one, "ring", after=1),
        lambda: objects.cancel_alarm(Cart, one, "ring"),
        lambda: objects.cancel_all_alarms(Cart, one),
        lambda: objects.list_alarms(Cart, one),
        lambda: objects.retry_alarm(Cart, one, "ring"),
        lambda: fire_alarm(objects, Cart, one, "ring"),
        lambda: get_persisted_state(objects, Cart, one),
    ]


@pytest.mark.parametrize("tenant", ["", "acme", "beta"])
async def test_an_id_cannot_look_like_an_address_of_a_tenant(tenant: str) -> None:
    """Inside, the name and the id are joined by a NUL."""
    async with opened() as runtime:
        await runtime.tenant("acme").get(Cart, "x").add("secret")
        objects: Objects = runtime.tenant(tenant) if tenant else runtime
        for object_id in ("acme\0x", "\0x", "x\0", Text("acme\0x")):
            for operation in operations_on(objects, object_id):
                with pytest.raises(InvalidObjectId, match="NUL"):
                    await operation()
            for find in (objects.get, objects.whereis):
                with pytest.raises(InvalidObjectId, match="NUL"):
                    find(Cart, object_id)
        assert await stored(runtime.tenant("acme"), "x") == ["secret"]


# --- in turns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler_name", ["where", "where_async"])
async def test_a_turn_is_of_its_tenant(handler_name: str) -> None:
    async with opened() as runtime:
        for objects in everybody(runtime):
            tenant = objects.name if isinstance(objects, Tenant) else ""
            found = await objects.call(Cart, "a", handler_name)
            key = ObjectKey("Cart", "a", tenant)
            assert found == (key, repr(objects), repr(objects), repr(runtime))
            assert current_runtime() is runtime


@pytest.mark.parametrize("how", ["context", "by name", "class", "current"])
async def test_what_a_turn_calls_is_of_its_tenant(how: str) -> None:
    async with opened() as runtime:
        for n, objects in enumerate(everybody(runtime)):
            assert await objects.get(Cart, "a").add_to("b", f"{n}", how) == [f"{n}"]
        for n, objects in enumerate(everybody(runtime)):
            assert await stored(objects, "b") == [f"{n}"]


async def test_the_class_client_outside_of_turns_is_of_no_tenant() -> None:
    async with opened() as runtime:
        await runtime.tenant("acme").get(Cart, "a").add("theirs")
        assert await Cart.add("a", "common") == ["common"]
        assert await stored(runtime.tenant("acme")) == ["theirs"]


async def test_a_turn_calls_somebody_elses_objects_through_the_root() -> None:
    async with opened() as runtime:
        for objects in everybody(runtime):
            for tenant in ("", "acme", "beta"):
                who = objects.name if isinstance(objects, Tenant) else "-"
                await objects.get(Cart, "a").add_at(tenant, "b", who)
        for objects in everybody(runtime):
            assert await stored(objects, "b") == ["-", "acme", "beta"]


async def test_a_circle_across_tenants_is_told_at_once() -> None:
    async with opened(call_timeout=None) as runtime:
        start = anyio.current_time()
        acme, beta = ObjectKey("Cart", "a", "acme"), ObjectKey("Cart", "a", "beta")
        with pytest.raises(CallCycle) as caught:
            await runtime.tenant("acme").get(Cart, "a").follow([("beta", "a"), ("acme", "a")])
        assert caught.value.path == (beta, acme, beta)
        assert "Cart('a') of tenant beta → Cart('a') of tenant acme" in str(caught.value)
        assert anyio.current_time() - start < 0.1


async def test_objects_that_differ_in_their_tenant_make_no_circle() -> None:
    async with opened() as runtime:
        path = [("acme", "a"), ("beta", "a"), ("acme", "b")]
        assert await runtime.get(Cart, "a").follow(path) == 4


async def test_errors_name_the_tenant() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        strict = acme.get(Strict, "a", timeout=1)
        key = ObjectKey("Strict", "a", "acme")
        attempts: list[tuple[type[Exception], Callable[[], Any]]] = [
            (StateEncodeError, lambda: strict.spoil()),
            (ReadonlyViolation, lambda: strict.cheat()),
            (CallTimeout, lambda: strict.sleep(5)),
            (ArgumentError, lambda: acme.call(Strict, "a", "write")),
            (InvalidAlarm, lambda: acme.get(Strict, "a").remind("")),
            (InvalidAlarm, lambda: acme.schedule_alarm(Strict, "a", "", after=1)),
        ]
        for expected, attempt in attempts:
            with pytest.raises(expected, match=r"Strict\('a'\) of tenant acme") as caught:
                await attempt()
            assert caught.value.key == key  # type: ignore[attr-defined]
        with pytest.raises(ActivationFailed, match=r"Strict\('unlucky'\) of tenant acme"):
            await acme.ensure_started(Strict, "unlucky")
        storage.fail_commits(StorageFault("as told"))
        with pytest.raises(PersistenceError, match=r"save Strict\('a'\) of tenant acme"):
            await strict.write(1.0)
        storage.fail_loads(StorageFault("as told"))
        with pytest.raises(PersistenceError, match=r"load Strict\('b'\) of tenant acme"):
            await acme.get(Strict, "b").write(1.0)


# --- alarms --------------------------------------------------------------------------------------


async def test_alarms_of_tenants_fire_at_their_times() -> None:
    async with opened() as runtime:
        common, acme, beta = everybody(runtime)
        await acme.get(Cart, "a").remind("ring", 3)
        await common.get(Cart, "a").remind("ring", 2)
        await beta.schedule_alarm(Cart, "a", "ring", after=timedelta(seconds=1))
        await anyio.sleep(2.5)
        assert rung == ["Cart('a') of tenant beta", "Cart('a')"]
        await anyio.sleep(1)
        assert rung[2:] == ["Cart('a') of tenant acme"]
        assert await common.get(Cart, "a").read() == ["ring -"]
        assert await acme.get(Cart, "a").read() == ["ring acme"]
        assert await beta.get(Cart, "a").read() == ["ring beta"]


async def test_alarms_of_tenants_fire_after_a_restart_though_nobody_touches_these(
    tmp_path: Path,
) -> None:
    path = tmp_path / "objects.db"
    async with opened(path) as runtime:
        for objects in everybody(runtime):
            await objects.schedule_alarm(Cart, "soon", "ring", after=1)
            await objects.schedule_alarm(Cart, "late", "ring", after=1000)
    await anyio.sleep(10)
    async with opened(path) as runtime:
        await anyio.sleep(1)
        tenants = ("", " of tenant acme", " of tenant beta")
        assert sorted(rung) == [f"Cart('soon'){tenant}" for tenant in tenants]
        rung.clear()
        # Beyond the horizon of the first look, but for which there are later ones.
        await anyio.sleep(1000)
        assert sorted(rung) == [f"Cart('late'){tenant}" for tenant in tenants]
        for objects in everybody(runtime):
            assert await objects.list_alarms(Cart, "late") == []


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_alarms_of_a_hundred_tenants(restarted: bool) -> None:
    storage = MemoryStorage()
    names = [f"t{n:03}" for n in range(150)]
    expected = sorted(f"Cart('{a}') of tenant {name}" for name in names for a in "ab")
    async with opened(storage) as runtime:
        for name in names:
            for object_id in "ab":
                await runtime.tenant(name).schedule_alarm(Cart, object_id, "ring", after=100)
        if not restarted:
            await anyio.sleep(101)
            assert sorted(rung) == expected
    if restarted:
        await anyio.sleep(200)
        async with opened(storage) as runtime:
            await anyio.sleep(1)
            assert sorted(rung) == expected
            assert await stored(runtime.tenant("t149"), "b") == ["ring t149"]


async def test_a_tenant_with_many_alarms_leaves_the_others_theirs() -> None:
    """More than a page of the feed, and all of one time."""
    storage = MemoryStorage()
    async with opened(storage) as runtime:
        for n in range(300):
            await runtime.tenant("acme").schedule_alarm(Cart, f"{n:03}", "ring", after=10)
        for objects in (runtime, runtime.tenant("aaa"), runtime.tenant("beta")):
            await objects.schedule_alarm(Cart, "a", "ring", after=10)
    async with opened(storage):
        await anyio.sleep(20)
        assert len(rung) == len(set(rung)) == 303


async def test_a_tenants_dead_letters_are_retried_there() -> None:
    async with opened() as runtime:
        _, acme, beta = everybody(runtime)
        for objects in (acme, beta):
            await objects.schedule_alarm(Cart, "a", "fail", after=1)
        await anyio.sleep(2)
        assert sorted(rung) == ["Cart('a') of tenant acme", "Cart('a') of tenant beta"]
        assert await runtime.list_dead_letters(Cart) == []
        assert await runtime.retry_alarm(Cart, "a", "fail") is False
        assert await acme.retry_alarm(Cart, "a", "fail") is True
        await anyio.sleep(1)
        assert rung[2:] == ["Cart('a') of tenant acme"]


async def test_slow_alarms_of_one_tenant_leave_room_to_those_of_another() -> None:
    """Of one object only some are under way; those of one id are several objects here."""
    async with opened() as runtime:
        for n in range(10):
            await runtime.tenant(f"t{n}").schedule_alarm(Cart, "a", "ring_slowly", after=1)
        await anyio.sleep(1.5)
        assert runtime.statistics().alarms_in_flight == 10
        await anyio.sleep(2)
        assert len(rung) == 10


async def test_what_is_under_way_of_one_tenant_is_not_taken_for_another_s() -> None:
    async with opened() as runtime:
        _, acme, beta = everybody(runtime)
        for objects in (acme, beta):
            await objects.schedule_alarm(Cart, "a", "ring_slowly", after=1)
        await anyio.sleep(2)
        await acme.cancel_alarm(Cart, "a", "ring_slowly")
        await anyio.sleep(5)
        assert runtime.statistics().alarms_failed == 0  # noticed before its commit was refused
        assert await acme.get(Cart, "a").read() == []
        assert await beta.get(Cart, "a").read() == ["rung slowly"]


# --- what users test with ------------------------------------------------------------------------


async def test_the_testing_kit_on_a_tenant() -> None:
    async with opened() as runtime:
        acme, beta = runtime.tenant("acme"), runtime.tenant("beta")
        await acme.get(Cart, "a").add("tea")
        await acme.get(Cart, "a").remind("ring", 100)
        await assert_persisted(acme, Cart, "a", items=["tea"])
        with pytest.raises(AssertionError, match=r"Cart\('a'\) of tenant beta to be stored"):
            await assert_persisted(beta, Cart, "a")
        with pytest.raises(AssertionError, match=r"Cart\('a'\) to be stored"):
            await assert_persisted(runtime, Cart, "a")
        assert (await assert_alarm_scheduled(acme, Cart, "a", "ring", within=100)).name == "ring"
        await refute_alarm_scheduled(beta, Cart, "a", "ring")
        with pytest.raises(AssertionError, match="of tenant beta"):
            await assert_alarm_scheduled(beta, Cart, "a", "ring")
        with pytest.raises(AssertionError, match="of tenant acme"):
            await refute_alarm_scheduled(acme, Cart, "a", "ring")
        assert [each.key.tenant for each in await all_scheduled_alarms(acme, Cart, "a")] == ["acme"]
        with pytest.raises(AssertionError, match="of tenant beta"):
            await fire_alarm(beta, Cart, "a", "ring")
        await fire_alarm(acme, Cart, "a", "ring")
        assert await stored(acme) == ["tea", "ring acme"]
        await acme.get(Cart, "a").remind("ring", 100)
        assert await drain_alarms(beta, Cart, "a") == 0
        assert await drain_alarms(acme, Cart, "a") == 1
        assert await runtime.list_tenants() == ["acme"]

"""Dropping a tenant: running work completes first, and then nothing of the tenant is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.carts import Cart, everybody, opened, rung, stored
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    AlarmSuperseded,
    CallCycle,
    DurableRuntime,
    ObjectKey,
    PersistenceError,
    RuntimeClosed,
    StorageUnavailable,
    TenantDropped,
)
from trio_durable.storage import StorageFault
from trio_durable.testing import (
    all_scheduled_alarms,
    fire_alarm,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _fresh() -> None:
    rung.clear()


async def nothing_is_left(runtime: DurableRuntime, tenant: str = "acme") -> None:
    """Neither live nor stored, and it begins anew."""
    objects = runtime.tenant(tenant)
    assert tenant not in await runtime.list_tenants()
    assert await objects.list_objects(Cart) == []
    assert await objects.list_dead_letters(Cart) == []
    for object_id in ("a", "b", "c"):
        assert objects.whereis(Cart, object_id) is None
        assert not await objects.exists(Cart, object_id)
        assert await stored(objects, object_id) is None
        assert await all_scheduled_alarms(objects, Cart, object_id) == []
        assert await objects.get(Cart, object_id).read() == []
        await objects.stop(Cart, object_id)
    assert await objects.get(Cart, "a").add("anew") == ["anew"]
    assert await stored(objects) == ["anew"]
    assert await runtime.list_tenants() == sorted({tenant, *await runtime.list_tenants()})


# --- what is in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
async def test_a_dropped_tenant_is_gone_and_begins_anew(tmp_path: Path, in_file: bool) -> None:
    async with opened(tmp_path / "objects.db" if in_file else ":memory:") as runtime:
        for objects in everybody(runtime):
            for object_id in ("a", "b", "c"):
                await objects.get(Cart, object_id).add("tea")
                await objects.schedule_alarm(Cart, object_id, "ring", after=100)
        assert await runtime.drop_tenant("acme") is True
        assert await runtime.drop_tenant("acme") is False
        await nothing_is_left(runtime)
        # Nobody else's are touched.
        for objects in (runtime, runtime.tenant("beta")):
            for object_id in ("a", "b", "c"):
                assert objects.whereis(Cart, object_id) is not None
                assert await objects.get(Cart, object_id).read() == ["tea"]
                assert len(await objects.list_alarms(Cart, object_id)) == 1
        await anyio.sleep(101)
        assert sorted(rung) == sorted(
            f"Cart({object_id!r}){tenant}"
            for object_id in ("a", "b", "c")
            for tenant in ("", " of tenant beta")
        )


async def test_a_tenant_that_was_never_stored_can_be_dropped() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        assert await acme.get(Cart, "a").read() == []
        assert acme.whereis(Cart, "a") is not None
        assert await runtime.drop_tenant("acme") is False
        assert acme.whereis(Cart, "a") is None
        await nothing_is_left(runtime)


async def test_hibernated_objects_go_too() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        await anyio.sleep(11)
        info = acme.whereis(Cart, "a")
        assert info is not None
        assert info.status == "hibernated"
        assert runtime.count_objects() == 1
        assert await runtime.drop_tenant("acme")
        assert runtime.count_objects() == 0
        await nothing_is_left(runtime)


async def test_a_turn_under_way_and_the_calls_behind_it_come_first() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        cart = acme.get(Cart, "a")
        async with calls() as group:
            slow = group.start(cart.add_slowly, "slow")
            await settle()
            queued = group.start(cart.add, "queued")
            await settle()
            dropping = group.start(runtime.drop_tenant, "acme")
            await settle()
            assert not dropping.done
            # New ones fail, whatever they are.
            operations: list[Callable[[], Any]] = [
                lambda: cart.add("late"),
                lambda: cart.read(),
                lambda: acme.get(Cart, "other").read(),
                lambda: acme.call("Cart", "a", "add", "late"),
                lambda: acme.ensure_started(Cart, "other"),
                lambda: acme.put_state(Cart, "a", Cart(items=["late"])),
                lambda: acme.delete(Cart, "a"),
                lambda: acme.schedule_alarm(Cart, "a", "ring", after=1),
                lambda: acme.cancel_all_alarms(Cart, "a"),
                lambda: acme.retry_alarm(Cart, "a", "ring"),
            ]
            for operation in operations:
                with pytest.raises(TenantDropped) as caught:
                    await operation()
                assert caught.value.tenant == "acme"
            # Nobody else's do.
            for objects in (runtime, runtime.tenant("beta"), runtime.tenant("acme2")):
                await objects.get(Cart, "a").add("tea")
        assert slow.value == ["slow"]
        assert queued.value == ["slow", "queued"]
        assert dropping.value is True
        await nothing_is_left(runtime)


async def test_a_turn_under_way_meets_the_drop_when_it_calls_its_own() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        async with calls() as group:
            call = group.start(acme.get(Cart, "a").add_slowly, "slow", 1)
            calling = group.start(acme.get(Cart, "b").sleep_and_add, 1, "c")
            await settle()
            assert await runtime.drop_tenant("acme") is True
        assert call.value == ["slow"]
        assert isinstance(calling.error, TenantDropped)
        await nothing_is_left(runtime)


async def test_an_object_that_is_loading_comes_first() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        cart = runtime.tenant("acme").get(Cart, "a")
        await cart.add("tea")
        await runtime.tenant("acme").stop(Cart, "a")
        async with calls() as group:
            with storage.held("reader"):
                call = group.start(cart.add, "late")
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
                assert not dropping.done
        assert call.value == ["tea", "late"]
        assert dropping.value is True
        await nothing_is_left(runtime)


async def test_a_commit_on_its_way_comes_first() -> None:
    """Or it would make the tenant anew."""
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        async with calls() as group:
            with storage.held("writer"):
                call = group.start(acme.get(Cart, "a").add, "tea")
                setting = group.start(acme.schedule_alarm, Cart, "b", "ring", after=1)
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
                assert not dropping.done
        assert call.value == ["tea"]
        assert setting.value is None
        assert dropping.value is True
        await nothing_is_left(runtime)
        await anyio.sleep(10)
        assert rung == []


async def test_a_reply_that_waits_for_its_commit_never_shows_what_was_dropped() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        cart = runtime.tenant("acme").get(Cart, "a")
        async with calls() as group:
            with storage.held("writer"):
                add = group.start(cart.add, "tea")
                await settle()
                before = group.start(cart.read)
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
                with pytest.raises(TenantDropped):
                    await cart.read()
                assert not before.done
        assert (add.value, before.value, dropping.value) == (["tea"], ["tea"], True)
        assert await cart.read() == []


# --- what goes wrong -----------------------------------------------------------------------------


async def test_a_commit_that_fails_does_not_keep_a_tenant_from_being_dropped() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        await acme.get(Cart, "b").add("tea")
        async with calls() as group:
            with storage.held("writer"):
                storage.fail_commits(StorageFault("as told"))
                add = group.start(acme.get(Cart, "a").add, "milk")
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
        assert isinstance(add.error, PersistenceError)
        assert dropping.value is True
        await nothing_is_left(runtime)


async def test_a_load_that_fails_does_not_keep_a_tenant_from_being_dropped() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        await acme.stop(Cart, "a")
        async with calls() as group:
            with storage.held("reader"):
                storage.fail_loads(StorageFault("as told"))
                add = group.start(acme.get(Cart, "a").add, "milk")
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
        assert isinstance(add.error, PersistenceError)
        assert dropping.value is True
        await nothing_is_left(runtime)


async def test_a_storage_that_fails_to_drop_loses_nothing() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        await acme.schedule_alarm(Cart, "a", "ring", after=100)
        storage.fail_drops(StorageFault("as told"))
        with pytest.raises(StorageUnavailable, match="as told"):
            await runtime.drop_tenant("acme")
        assert await runtime.list_tenants() == ["acme"]
        assert await acme.get(Cart, "a").add("milk") == ["tea", "milk"]
        await anyio.sleep(101)
        assert await acme.get(Cart, "a").read() == ["tea", "milk", "ring acme"]
        assert await runtime.drop_tenant("acme") is True
        await nothing_is_left(runtime)


async def test_a_second_drop_at_once_is_refused() -> None:
    async with opened() as runtime:
        async with calls() as group:
            call = group.start(runtime.tenant("acme").get(Cart, "a").add_slowly, "slow")
            await settle()
            first = group.start(runtime.drop_tenant, "acme")
            await settle()
            with pytest.raises(TenantDropped):
                await runtime.drop_tenant("acme")
            other = group.start(runtime.drop_tenant, "beta")
        assert call.value == ["slow"]
        assert (first.value, other.value) == (True, False)
        assert await runtime.drop_tenant("acme") is False


async def test_a_drop_that_is_cancelled_while_it_waits_drops_nothing() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "b").add("tea")
        async with calls() as group:
            call = group.start(acme.get(Cart, "a").add_slowly, "slow")
            await settle()
            dropping = group.start(runtime.drop_tenant, "acme")
            await settle()
            dropping.cancel()
            await settle()
            assert dropping.done
            assert await acme.get(Cart, "b").add("milk") == ["tea", "milk"]
            behind = group.start(acme.get(Cart, "a").add, "behind")
        assert call.value == ["slow"]
        assert behind.value == ["slow", "behind"]
        assert await stored(acme) == ["slow", "behind"]
        assert await runtime.drop_tenant("acme") is True
        await nothing_is_left(runtime)


async def test_a_drop_that_is_cancelled_while_the_storage_works_is_done() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        async with calls() as group:
            with storage.held("writer"):
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
                dropping.cancel()
                await settle()
                assert not dropping.done
                with pytest.raises(TenantDropped):
                    await acme.get(Cart, "a").read()
        assert dropping.done
        await nothing_is_left(runtime)


# --- alarms under way ----------------------------------------------------------------------------


async def test_an_alarm_whose_handler_runs_comes_first() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Cart, "a", "ring_slowly", after=1)
        await anyio.sleep(2)
        async with calls() as group:
            dropping = group.start(runtime.drop_tenant, "acme")
            await settle()
            assert not dropping.done
        assert dropping.value is True
        assert rung == ["Cart('a') of tenant acme"]
        await nothing_is_left(runtime)
        await anyio.sleep(100)
        assert len(rung) == 1
        assert runtime.statistics().alarms_delivered == 1


async def test_an_alarm_that_waits_in_the_mailbox_comes_first() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Cart, "a", "ring", after=1)
        async with calls() as group:
            group.start(acme.get(Cart, "a").add_slowly, "slow", 3)
            await anyio.sleep(2)
            assert runtime.statistics().alarms_in_flight == 1
            dropping = group.start(runtime.drop_tenant, "acme")
        assert dropping.value is True
        assert rung == ["Cart('a') of tenant acme"]
        await nothing_is_left(runtime)


async def test_an_alarm_that_is_being_claimed_never_fires() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Cart, "a", "ring", after=1)
        async with calls() as group:
            with storage.held("writer"):
                await anyio.sleep(2)
                assert runtime.statistics().alarms_in_flight == 1
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
        assert dropping.value is True
        await anyio.sleep(100)
        assert rung == []
        assert runtime.statistics().alarms_in_flight == 0
        # If the drop was over before the claim was known, the delivery has loaded the object, to
        # find that out.
        await acme.stop(Cart, "a")
        await nothing_is_left(runtime)


async def test_an_alarm_that_was_claimed_ahead_never_fires() -> None:
    """Its row is gone when its time comes, and the object is another by then."""
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await runtime.schedule_alarm(Cart, "slow", "ring", after=1)
        with storage.held("writer"):
            await anyio.sleep(2)  # so that claims are made well ahead, as they take so long
        await settle()
        rung.clear()
        start = anyio.current_time()
        await acme.schedule_alarm(Cart, "a", "ring", after=1)
        await anyio.sleep(start + 0.99 - anyio.current_time())
        assert runtime.statistics().alarms_in_flight == 1
        assert await runtime.drop_tenant("acme") is True
        assert await acme.get(Cart, "a").add("anew") == ["anew"]
        await anyio.sleep(1)
        assert await acme.get(Cart, "a").add("later") == ["anew", "later"]
        assert rung == []
        assert runtime.statistics().alarms_in_flight == 0


async def test_an_alarm_that_meets_a_drop_uses_up_no_attempt() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Cart, "b", "fail", after=1)  # which has one
        async with calls() as group:
            group.start(acme.get(Cart, "a").add_slowly, "slow", 3)
            await settle()
            dropping = group.start(runtime.drop_tenant, "acme")
            await anyio.sleep(2)
            assert rung == []
            assert await acme.list_dead_letters(Cart) == []
            (waiting,) = await acme.list_alarms(Cart, "b")
            assert waiting.attempt == 1
            dropping.cancel()
            await anyio.sleep(5)
        assert rung == ["Cart('b') of tenant acme"]
        (dead,) = await acme.list_dead_letters(Cart)
        assert dead.attempt == 1


async def test_an_alarm_that_fires_early_while_its_tenant_goes_is_settled() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Cart, "a", "ring", after=100)
        async with calls() as group:
            with storage.held("writer"):
                firing = group.start(fire_alarm, acme, Cart, "a", "ring")
                await settle()
                dropping = group.start(runtime.drop_tenant, "acme")
                await settle()
        assert dropping.value is True
        # The one or the other, as the loop wakes the two.
        assert isinstance(firing.error, TenantDropped | AlarmSuperseded)
        assert rung == []
        await acme.stop(Cart, "a")
        await nothing_is_left(runtime)


async def test_alarms_of_a_tenant_that_begins_anew_are_its_new_ones() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        for delay in (5, 20):
            for object_id in ("a", "b"):
                await acme.schedule_alarm(Cart, object_id, "ring", after=delay)
            await acme.schedule_alarm(Cart, "c", "ring", after=delay)
            assert await runtime.drop_tenant("acme") is True
        await acme.schedule_alarm(Cart, "a", "ring", after=30)
        await anyio.sleep(29)
        assert rung == []
        await anyio.sleep(2)
        assert rung == ["Cart('a') of tenant acme"]


# --- circles -------------------------------------------------------------------------------------


async def test_a_turn_cannot_drop_its_own_tenant() -> None:
    async with opened() as runtime:
        acme = runtime.tenant("acme")
        await acme.get(Cart, "a").add("tea")
        with pytest.raises(CallCycle) as caught:
            await acme.get(Cart, "a").drop("acme")
        key = ObjectKey("Cart", "a", "acme")
        assert caught.value.path == (key, key)
        assert await acme.get(Cart, "a").add("milk") == ["tea", "milk"]
        assert await runtime.drop_tenant("acme") is True


async def test_a_turn_can_drop_somebody_elses_tenant() -> None:
    async with opened() as runtime:
        await runtime.tenant("acme").get(Cart, "a").add("tea")
        await runtime.tenant("beta").get(Cart, "a").add("tea")
        assert await runtime.get(Cart, "a").drop("acme") is True
        await nothing_is_left(runtime)
        assert await runtime.tenant("acme").get(Cart, "a").drop("beta") is True
        await nothing_is_left(runtime, "beta")


async def test_a_turn_that_the_tenant_waits_for_cannot_drop_it() -> None:
    async with opened(call_timeout=None) as runtime:
        start = anyio.current_time()
        with pytest.raises(CallCycle) as caught:
            await runtime.tenant("acme").get(Cart, "a", timeout=None).ask_to_drop("acme", "d")
        assert anyio.current_time() - start < 0.1
        theirs, dropper = ObjectKey("Cart", "a", "acme"), ObjectKey("Cart", "d")
        assert caught.value.key == theirs
        assert caught.value.path == (dropper, theirs, dropper)
        assert await runtime.tenant("acme").get(Cart, "a").add("tea") == ["tea"]


async def test_a_turn_of_the_tenant_cannot_wait_for_the_turn_that_drops_it() -> None:
    async with opened(call_timeout=None) as runtime, calls() as group:
        theirs = runtime.tenant("acme").get(Cart, "a", timeout=None)
        await theirs.add("tea")
        call = group.start(theirs.sleep_and_follow, 1, "d")
        await settle()
        dropping = group.start(runtime.get(Cart, "d", timeout=None).drop, "acme")
        await anyio.sleep(0.9)
        assert not dropping.done
        await anyio.sleep(0.2)
        assert "Cart('a') of tenant acme → Cart('d') → Cart('a') of tenant acme" in call.value
        assert dropping.value is True
        # And no trace of that is left.
        again = group.start(theirs.sleep_and_follow, 1, "d")
        await anyio.sleep(2)
        assert again.value == "no circle"


# --- while the runtime closes --------------------------------------------------------------------


@pytest.mark.parametrize("idle", [1, 50])
async def test_a_runtime_that_closes_meanwhile_drops_all_or_nothing(
    tmp_path: Path, idle: int
) -> None:
    path = tmp_path / "objects.db"
    async with calls() as group, opened(path, grace_period=1) as runtime:
        acme = runtime.tenant("acme")
        for n in range(idle):
            await acme.get(Cart, f"{n}").add("tea")
        call = group.start(acme.get(Cart, "a").add_slowly, "slow", 5)
        await settle()
        dropping = group.start(runtime.drop_tenant, "acme")
        await settle()
    assert isinstance(call.error, RuntimeClosed)
    assert isinstance(dropping.error, RuntimeClosed)
    async with opened(path) as runtime:
        assert await runtime.list_tenants() == ["acme"]
        assert len(await runtime.tenant("acme").list_objects(Cart, limit=1000)) == idle
        assert await runtime.drop_tenant("acme") is True


async def test_a_runtime_that_closes_in_good_order_drops_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    async with calls() as group, opened(path, grace_period=10) as runtime:
        call = group.start(runtime.tenant("acme").get(Cart, "a").add_slowly, "slow", 5)
        await settle()
        dropping = group.start(runtime.drop_tenant, "acme")
        await settle()
    assert call.value == ["slow"]
    # Which of the two went on first when the turn ended, the loop decides.
    is_dropped = dropping.error is None
    assert is_dropped or isinstance(dropping.error, RuntimeClosed)
    async with opened(path) as runtime:
        assert await runtime.list_tenants() == ([] if is_dropped else ["acme"])
        assert await stored(runtime.tenant("acme")) == (None if is_dropped else ["slow"])


async def test_a_drop_that_comes_too_late_does_not_reach_for_the_storage(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    async with calls() as group, opened(path) as runtime:
        acme = runtime.tenant("acme")
        for n in range(200):  # to let it take longer than closing does
            await acme.get(Cart, f"{n}").add("tea")
        dropping = group.start(runtime.drop_tenant, "acme")
        await anyio.lowlevel.checkpoint()
    assert isinstance(dropping.error, RuntimeClosed)
    async with opened(path) as runtime:
        assert await runtime.list_tenants() == ["acme"]
        assert await stored(runtime.tenant("acme"), "7") == ["tea"]


async def test_a_closed_runtime_drops_nothing() -> None:
    runtime = DurableRuntime(":memory:")
    with pytest.raises(RuntimeClosed):
        await runtime.drop_tenant("acme")
    with pytest.raises(RuntimeClosed):
        runtime.tenant("acme")
    async with runtime:
        acme = runtime.tenant("acme")
    with pytest.raises(RuntimeClosed):
        await runtime.drop_tenant("acme")
    with pytest.raises(RuntimeClosed):
        await runtime.list_tenants()
    with pytest.raises(RuntimeClosed):
        acme.get(Cart, "a")
    with pytest.raises(RuntimeClosed):
        await acme.schedule_alarm(Cart, "a", "ring", after=1)

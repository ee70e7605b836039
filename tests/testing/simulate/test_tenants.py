"""Tenants in simulations: steps of each, drops, and leaks from one to another."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from trio_durable import Alarm, DefinitionError, DurableObject, InvalidTenant, Retry, handler
from trio_durable.testing.simulate import Call, Simulation, outside, run_simulation

from .objects import Account, Accounts, story_of
from .test_steps import simulating

BOTH = ("acme", "beta")


class Banks(Accounts):
    """Accounts with their model, in two tenants that are dropped now and then."""

    tenants = BOTH
    tenant_drops = True
    ids = ("a", "b")


def balances(state: Simulation) -> dict[str, dict[str, int]]:
    return {
        name: {
            each: account.balance for each, account in state.tenant(name).stored(Account).items()
        }
        for name in state.list_tenants()
    }


# --- steps ---------------------------------------------------------------------------------------


def test_the_same_id_in_two_tenants_is_two_objects() -> None:
    with simulating(Banks) as state:
        acme, beta = map(state.tenant, BOTH)
        assert acme.call(Account, "a", "deposit", 5).result == 5
        assert beta.call(Account, "a", "deposit", 1).result == 1
        assert balances(state) == {"acme": {"a": 5}, "beta": {"a": 1}}
        assert state.stored(Account) == {}
        acme.call(Account, "a", "pay_interest")
        assert [alarm.name for alarm in acme.alarms(Account, "a")] == ["interest"]
        assert beta.alarms(Account, "a") == state.alarms(Account, "a") == []
        state.wait_for_alarm()
        assert balances(state) == {"acme": {"a": 6}, "beta": {"a": 1}}


def test_calls_of_several_tenants_are_made_together() -> None:
    with simulating(Banks) as state:
        call = Call(Account, "a", "deposit", 5)
        there = call.of_tenant("acme")
        assert (call.tenant, there.tenant) == ("", "acme")
        assert repr(there) == "Call(Account, 'a', 'deposit', 5).of_tenant('acme')"
        state.together(call, there, call.of_tenant("beta"), fault="crash after commit 1")
        assert balances(state) == {"acme": {"a": 5}, "beta": {"a": 5}}
        assert state.stored(Account)["a"].balance == 5


def test_messages_are_listed_by_tenant() -> None:
    with simulating(Couriers) as state:
        acme = state.tenant("acme")
        acme.call(Courier, "a", "order", "b")
        assert [message.receiver.tenant for message in acme.messages] == ["acme"]
        assert state.tenant("beta").messages == state.messages == []
        state.wait(3600)
        assert acme.messages == []
        assert acme.stored(Courier)["b"].brought == 1
        acme.call(Courier, "a", "order", "nobody")
        state.wait(3600)
        assert [message.receiver.object_id for message in acme.dead_messages] == ["nobody"]
        assert state.tenant("beta").dead_messages == state.dead_messages == []


def test_a_tenant_must_have_a_valid_name() -> None:
    with simulating(Banks) as state, pytest.raises(InvalidTenant):
        state.tenant("ACME")


# --- drops ---------------------------------------------------------------------------------------


def test_a_dropped_tenant_begins_again_and_the_others_stay() -> None:
    with simulating(Banks) as state:
        acme, beta = map(state.tenant, BOTH)
        for each in (acme, beta):
            each.call(Account, "a", "deposit", 5)
            each.call(Account, "a", "pay_interest")
        state.drop_tenant("acme")
        assert balances(state) == {"beta": {"a": 5}}
        state.wait(60)
        assert balances(state) == {"beta": {"a": 6}}
        assert acme.call(Account, "a", "deposit", 2).result == 2
        state.drop_tenant("beta")
        state.drop_tenant("beta")  # nothing is there
        assert state.report.tenants_dropped == 2
        assert "\n  tenants dropped: 2\n" in str(state.report)


@pytest.mark.parametrize(
    ("fault", "is_there"),
    [
        ("fail before drop 1", True),
        ("fail after drop 1", False),
        ("crash before drop 1", True),
        ("crash after drop 1", False),
    ],
)
def test_a_fault_may_come_into_a_drop(fault: str, is_there: bool) -> None:
    with simulating(Banks) as state:
        acme = state.tenant("acme")
        acme.call(Account, "a", "deposit", 5)
        state.drop_tenant("acme", fault=fault)
        assert state.report.faults.total() == 1
        assert balances(state) == ({"acme": {"a": 5}} if is_there else {})
        assert acme.call(Account, "a", "deposit", 1).result == (6 if is_there else 1)


def test_a_drop_that_the_app_makes_is_known_to_models() -> None:
    with simulating(Registered) as state:
        acme = state.tenant("acme")
        acme.call(Account, "a", "deposit", 5)
        state.call(Registry, "r", "close", "acme")
        assert state.list_tenants() == []
        assert acme.call(Account, "a", "deposit", 1).result == 1


def test_a_backup_has_the_tenants_of_its_moment() -> None:
    class Restored(Banks):
        backups = True

    with simulating(Restored) as state:
        state.tenant("acme").call(Account, "a", "deposit", 5)
        state.back_up()
        state.drop_tenant("acme")
        state.tenant("beta").call(Account, "a", "deposit", 1)
        state.restore_backup()
        assert balances(state) == {"acme": {"a": 5}}
        assert state.tenant("beta").call(Account, "a", "deposit", 1).result == 1


class Courier(DurableObject, name="simulate.Courier"):
    brought: int = 0

    @handler
    def order(self, to: str) -> None:
        self.ctx.outgoing(after=60).send(Courier.bring, to)

    @handler(retry=Retry(attempts=1))
    def bring(self) -> None:
        if self.ctx.object_id == "nobody":
            raise LookupError
        self.brought += 1


class Couriers(Simulation):
    objects = (Courier,)
    tenants = BOTH
    allowed = (LookupError,)


class Registry(DurableObject, name="simulate.Registry"):
    """Belongs to no tenant, and closes them."""

    closed: int = 0

    @handler
    async def close(self, tenant: str) -> None:
        await self.ctx.runtime.root.drop_tenant(tenant)
        self.closed += 1


class Registered(Banks):
    objects: ClassVar[Any] = (Account, Registry)
    shared = (Registry,)
    tenant_drops = False
    arguments: ClassVar = {**Accounts.arguments, "Registry.close.tenant": st.sampled_from(BOTH)}


# --- searches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("simulation", [Banks, Registered])
def test_tenants_are_apart_in_any_story(simulation: type[Simulation]) -> None:
    report = run_simulation(simulation, seed=1, stories=10)
    assert report.tenants_dropped
    assert report.models_compared


class Cached(DurableObject, name="simulate.Cached"):
    """Keeps prices outside of its fields, under an id that two tenants may have."""

    seen: ClassVar[dict[str, int]] = {}
    price: int = 0

    @handler
    def set_price(self, cents: int) -> None:
        self.price = self.seen[self.ctx.object_id] = cents

    @handler(readonly=True)
    def get_price(self) -> int:
        return self.seen.get(self.ctx.object_id, self.price)


class Priced:
    price = 0

    def set_price(self, cents: int) -> None:
        self.price = cents

    def get_price(self) -> int:
        return self.price


class Cache(Simulation):
    objects = (Cached,)
    models: ClassVar = {Cached: Priced}
    tenants = BOTH
    ids = ("tea",)

    def __init__(self) -> None:
        Cached.seen.clear()  # no crash does
        super().__init__()


class Meddler(DurableObject, name="simulate.Meddler"):
    """Calls an object of whatever tenant it is given."""

    met: int = 0

    @handler
    async def meet(self, tenant: str) -> None:
        await self.ctx.runtime.root.tenant(tenant).get(Meddler, "other").be_met()

    @handler
    def be_met(self) -> None:
        self.met += 1


class Meddlers(Simulation):
    objects = (Meddler,)
    tenants = BOTH
    ids = ("one",)
    arguments: ClassVar = {"Meddler.meet.tenant": st.sampled_from(BOTH)}


async def write_file(path: str) -> None:
    """Stands for a bucket outside."""
    raise NotImplementedError


class Report(DurableObject, name="simulate.Report"):
    """Writes a file under its id; the drop of its tenant leaves it there."""

    written: int = 0

    @handler
    async def write(self) -> None:
        self.written += 1
        await self.ctx.commit()
        await write_file(f"{self.ctx.key.tenant}/{self.ctx.object_id}")


class Reports(Simulation):
    objects = (Report,)
    tenants = BOTH
    tenant_drops = True

    def __init__(self) -> None:
        self.files: set[str] = set()
        super().__init__()

    @outside(sys.modules[__name__], "write_file")
    async def write_file(self, path: str) -> None:
        self.files.add(path)

    @invariant()
    def no_file_is_left(self) -> None:
        assert {path.partition("/")[0] for path in self.files} <= {*self.list_tenants()}


LEAKS: Mapping[type[Simulation], tuple[str | None, str]] = {
    Cache: ("differs from its model", r"state\..*Cached, 'tea', 'get_price'\)"),
    Meddlers: (
        "has called be_met of .* add 'Meddler.be_met' to crossings",
        r"state\.tenant\('acme'\)\.call\(Meddler, 'one', 'meet', tenant='beta'\)",
    ),
    Reports: (None, r"state\.drop_tenant\('(acme|beta)'\)"),
}
"""What is said of a leak, and the step that shows it."""


@pytest.mark.parametrize("simulation", LEAKS)
def test_a_planted_leak_is_found(simulation: type[Simulation]) -> None:
    says, step = LEAKS[simulation]
    with pytest.raises(AssertionError, match=says) as raised:
        run_simulation(simulation, seed=1, stories=25)
    story = story_of(raised.value)
    assert any(re.match(step, line) for line in story), "\n".join(story)
    # The story is a program that shows the same.
    names: dict[str, Any] = {simulation.__name__: simulation}
    with pytest.raises(AssertionError, match=says):
        exec("\n".join(story), names)


class MetMeddlers(Meddlers):
    crossings = ("Meddler.be_met",)

    @invariant()
    def only_others_are_met(self) -> None:
        for name in BOTH:
            assert self.tenant(name).stored(Meddler).keys() <= {"one", "other"}


def test_calls_between_tenants_may_be_allowed() -> None:
    run_simulation(MetMeddlers, seed=1, stories=5)


# --- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"tenants": "acme"}, "tenants: must be a tuple or a list"),
        ({"tenants": ("acme", "B")}, "tenants: 'B': it has forbidden characters"),
        ({"tenant_drops": True}, "tenant_drops: needs tenants, and there are none"),
        ({"shared": (Account,)}, "shared: needs tenants"),
        ({"crossings": ("Account.deposit",)}, "crossings: needs tenants"),
        ({"tenants": BOTH, "shared": (Courier,)}, "shared: .*Courier.* is not in objects"),
        ({"tenants": BOTH, "shared": (Account,)}, "shared: leaves no class to tenants"),
        (
            {"tenants": BOTH, "crossings": ("Account.rob",)},
            "crossings: there is no .*'Account.rob'",
        ),
    ],
)
def test_invalid_attributes_are_refused(attributes: dict[str, object], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        type("Wrong", (Simulation,), {"objects": (Account,), **attributes})


def test_alarms_of_a_tenant_have_their_payload() -> None:
    with simulating(Banks) as state:
        state.tenant("beta").call(Account, "a", "note_later", "x")
        [alarm] = state.tenant("beta").alarms(Account, "a")
        assert isinstance(alarm, Alarm)
        state.wait(3600)
        assert state.tenant("beta").stored(Account)["a"].noted == ["x"]

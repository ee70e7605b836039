"""What is simulated in the tests: an account with its model, and the world around it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, run_state_machine_as_test

from trio_durable import Alarm, CallCycle, CallTimeout, DurableObject, alarm, handler
from trio_durable.testing.simulate import Simulation, outside


class Overdrawn(Exception):
    """What accounts refuse."""


async def send_mail(to: str) -> None:
    """Stands for something outside."""
    raise NotImplementedError


def print_line(line: str) -> str:
    """The same, as a plain function."""
    raise NotImplementedError


class Account(DurableObject, name="simulate.Account", hibernate_after=30):
    balance: int = 0
    interest_days: int = 0
    noted: list[str] = attrs.field(factory=list)

    @handler
    def deposit(self, cents: int) -> int:
        self.balance += cents
        return self.balance

    @handler
    def withdraw(self, cents: int) -> int:
        self.balance -= cents
        if self.balance < 0:
            raise Overdrawn
        return self.balance

    @handler
    async def deposit_in_parts(self, cents: int) -> int:
        self.balance += cents
        await self.ctx.commit()
        await anyio.sleep(1)
        self.balance += 1
        return self.balance

    @handler
    async def move(self, to: str, cents: int) -> None:
        """Take it here, and put it there; it may be lost between."""
        if to == self.ctx.object_id or not 0 <= cents <= self.balance:
            raise Overdrawn
        self.balance -= cents
        await self.ctx.commit()
        await self.ctx.runtime.get(Account, to).deposit(cents)

    @handler(readonly=True)
    def look(self) -> int:
        return self.balance

    @handler
    def pay_interest(self) -> None:
        self.ctx.schedule_alarm("interest", after=60)

    @handler
    def note_later(self, text: str) -> None:
        self.ctx.schedule_alarm(f"note {text}", after=3600, payload=text)

    @alarm
    def interest(self) -> None:
        self.balance += 1
        self.interest_days += 1
        if self.interest_days % 3:
            self.ctx.schedule_alarm("interest", after=60)

    def handle_alarm(self, alarm: Alarm) -> None:
        self.noted.append(alarm.payload_as(str))


class AccountModel:
    object_id: str

    def __init__(self) -> None:
        self.balance = 0
        self.interest_days = 0
        self.noted: list[str] = []

    def deposit(self, cents: int) -> int:
        self.balance += cents
        return self.balance

    def withdraw(self, cents: int) -> int:
        if cents > self.balance:
            raise Overdrawn
        self.balance -= cents
        return self.balance

    def deposit_in_parts(self, cents: int) -> Generator[None, None, int]:
        self.balance += cents
        yield  # what it does after this may be lost alone
        self.balance += 1
        return self.balance

    def move(self, to: str, cents: int) -> Generator[None, None, None]:
        if to == self.object_id or not 0 <= cents <= self.balance:
            raise Overdrawn
        self.balance -= cents
        yield

    def look(self) -> int:
        return self.balance

    def pay_interest(self) -> None:
        pass

    def note_later(self, text: str) -> None:
        pass

    def interest(self) -> None:
        self.balance += 1
        self.interest_days += 1

    def handle_alarm(self, alarm: Alarm) -> None:
        self.noted.append(alarm.payload_as(str))


class Accounts(Simulation):
    objects = (Account,)
    models: ClassVar = {Account: AccountModel}
    allowed = (CallCycle,)  # two that move to each other
    arguments: ClassVar = {
        "Account.withdraw.cents": st.integers(0, 9),
        "Account.move.to": st.sampled_from(["a", "b"]),
        "Account.move.cents": st.integers(0, 9),
    }

    @invariant()
    def interest_goes_on_until_it_has_been_paid_three_times(self) -> None:
        for object_id, account in self.stored(Account).items():
            names = [alarm.name for alarm in self.alarms(Account, object_id)]
            assert "interest" in names or account.interest_days % 3 == 0


class Clerk(DurableObject, name="simulate.Clerk"):
    """Does things outside, with everything that can be between."""

    sent: int = 0
    log: list[str] = attrs.field(factory=list)

    @handler
    async def send(self, times: int = 1) -> int:
        for _ in range(times):
            await send_mail(self.ctx.object_id)
            self.sent += 1
        return self.sent

    @handler
    async def send_after_commit(self) -> None:
        self.log.append("meant")
        await self.ctx.commit()
        await send_mail(self.ctx.object_id)
        self.log.append("done")

    @handler
    def print(self) -> str:
        return print_line(self.ctx.object_id)

    @handler
    async def cling(self) -> None:
        """Does all it can to go on."""
        try:
            self.log.append("tried")
            await send_mail(self.ctx.object_id)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)
                self.log.append("clung")
                await self.ctx.commit()
                await send_mail("clung")

    @handler
    async def dawdle(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.sent += 1

    @handler
    def later(self, seconds: float = 60) -> None:
        self.ctx.schedule_alarm("remind", after=seconds)

    @alarm
    async def remind(self) -> None:
        await send_mail(self.ctx.object_id)
        self.sent += 1


class Office(Simulation):
    objects = (Clerk,)
    allowed = (OSError,)
    arguments: ClassVar = {
        "Clerk.send.times": st.integers(1, 2),
        "Clerk.dawdle.seconds": st.sampled_from([0.5, 4.0, 7.0]),
        "Clerk.later.seconds": st.sampled_from([0.0, 60.0]),
    }

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__()

    @outside(sys.modules[__name__], "send_mail", fails_with=OSError)
    async def send_mail(self, to: str) -> None:
        await anyio.sleep(0.1)
        self.mails.append(to)

    @outside(sys.modules[__name__], "print_line", fails_with=OSError)
    def print_line(self, line: str) -> str:
        self.mails.append(line)
        return line.upper()


class Restless(DurableObject, name="simulate.Restless"):
    """Never comes to an end."""

    @handler
    async def spin(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    @handler
    def begin(self, after: float, interval: float) -> None:
        self.ctx.schedule_alarm("again", after=after, payload=interval)

    def handle_alarm(self, alarm: Alarm) -> None:
        interval = alarm.payload_as(float)
        self.ctx.schedule_alarm("again", after=interval, payload=interval)

    @handler
    async def hold_on(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(86400)


class Restlessness(Simulation):
    objects = (Restless,)
    allowed = (CallTimeout,)
    left_out = ("Restless.spin", "Restless.hold_on")
    arguments: ClassVar = {
        "Restless.begin.after": st.just(30.0),
        "Restless.begin.interval": st.just(0.0),
    }


def simulate(simulation: type[Simulation], *, stories: int = 60, **kwargs: Any) -> None:
    """Run a simulation, the same one each time."""
    chosen = settings(
        simulation.TestCase.settings,
        max_examples=stories,
        derandomize=True,
        database=None,
        **kwargs,
    )
    run_state_machine_as_test(simulation, settings=chosen)


def story_of(error: BaseException) -> list[str]:
    """The lines of the story that a failure comes with."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    return [line for line in notes.splitlines() if line.startswith(("state", "from"))]

"""A bank, twice: a crash between two awaits loses money, and a message doesn't."""

from datetime import datetime, timedelta

import attrs

from trio_durable import DurableObject, alarm, handler


class Account(DurableObject):
    balance: int = 1_000
    payments: int = 0  # the number of transfers from this account

    @handler
    def withdraw(self, amount: int) -> None:
        self.balance -= amount

    @handler
    def deposit(self, amount: int) -> None:
        self.balance += amount

    @handler
    def transfer(self, payee: str, amount: int) -> None:
        self.balance -= amount
        self.payments += 1
        self.ctx.send(Account.deposit, payee, amount)  # in the same commit


async def transfer_by_awaits(payer: str, payee: str, amount: int) -> None:
    await Account.withdraw(payer, amount)  # one commit
    await Account.deposit(payee, amount)  # another one


class Timer(DurableObject):
    due: datetime | None = None
    rang: list[datetime] = attrs.field(factory=list)

    @handler
    def start(self, seconds: float) -> None:
        self.due = self.ctx.now() + timedelta(seconds=seconds)
        self.ctx.schedule_alarm("ring", at=self.due)

    @alarm
    def ring(self) -> None:
        self.rang.append(self.ctx.now())

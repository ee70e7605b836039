"""Orders that charge a card once, whatever happens in between; and some that only seem to.

A card is charged outside of the object, so that no commit of the object can be one with it: the
process may die when the card is charged and the object doesn't know yet. What helps is a key under
which the bank knows the payment, and does it once however often it is asked. But the object must
know the key again after a crash, so that it asks for the same payment and not for another one.

`simulations.py` looks for what can go wrong with both classes, and finds it.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import attrs

from trio_durable import DurableObject, alarm, handler


async def charge_card(order_id: str, key: str, cents: int) -> None:
    """Have the bank charge a card, once per ``key``.

    Raises:
        ConnectionError: The bank can't be reached, or hasn't answered: nobody knows.
    """
    raise NotImplementedError("a real shop talks to its bank here")


@attrs.frozen
class Payment:
    """What the bank is asked for."""

    key: str
    cents: int


class HastyOrder(DurableObject):
    """Charges twice: its key is lost if the process dies between the bank and the commit."""

    payment: Payment | None = None
    paid: bool = False

    @handler
    async def pay(self, cents: int) -> None:
        """Charge the card, unless that was done before. May be repeated."""
        if self.payment is None:
            self.payment = Payment(str(uuid4()), cents)
        if not self.paid:
            await charge_card(self.ctx.object_id, self.payment.key, self.payment.cents)
            self.paid = True


class Order(DurableObject):
    """Commits to its key before it uses it, and comes back to what was cut off in between."""

    payment: Payment | None = None
    paid: bool = False

    @handler
    async def pay(self, cents: int) -> None:
        """Charge the card, unless that was done before. May be repeated, but needn't be."""
        if self.payment is None:
            self.payment = Payment(str(uuid4()), cents)
            self.ctx.schedule_alarm("settle", after=timedelta(minutes=1))
            await self.ctx.commit()
        await self._settle(self.payment)

    @alarm
    async def settle(self) -> None:
        """Bring to an end what a crash has left, or what the bank didn't answer."""
        if self.payment is not None:
            await self._settle(self.payment)

    async def _settle(self, payment: Payment) -> None:
        if not self.paid:
            await charge_card(self.ctx.object_id, payment.key, payment.cents)
            self.paid = True
        self.ctx.cancel_alarm("settle")

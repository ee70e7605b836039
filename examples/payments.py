"""Orders that charge a card once, whatever happens in between; and some that only seem to.

A card is charged outside of the object, so that no commit of the object can be one with it: the
process may die when the card is charged and the object doesn't know yet. That is a *dual write*:
two places are written as if they were one. What helps is a key under which the bank knows the
payment, and does it once however often it is asked. But a second attempt must have the same key, so
that it asks for the same payment and not for another one.

A message has such a key: its id, which is the same at each attempt. It is sent in the commit that
turns the order into one that is being paid, and it is tried again until its handler has ended well.

`simulations.py` looks for what can go wrong with both classes of orders, and finds it.
"""

from __future__ import annotations

from uuid import uuid4

import attrs

from trio_durable import DurableObject, Retry, SendFailed, handler


class CardDeclined(Exception):
    """The bank doesn't pay."""


async def charge_card(order_id: str, key: str, cents: int) -> None:
    """Have the bank charge a card, once per ``key``.

    Raises:
        CardDeclined: The bank has answered, and doesn't pay.
        ConnectionError: The bank can't be reached, or hasn't answered: nobody knows.
    """
    raise NotImplementedError("a real shop talks to its bank here")


@attrs.frozen
class Charge:
    """The request to the bank."""

    key: str
    cents: int


class HastyOrder(DurableObject):
    """Charges twice: its key is lost if the process dies between the bank and the commit."""

    payment: Charge | None = None
    paid: bool = False

    @handler
    async def pay(self, cents: int) -> None:
        """Charge the card, unless that was done before. May be repeated."""
        if self.payment is None:
            self.payment = Charge(str(uuid4()), cents)
        if not self.paid:
            await charge_card(self.ctx.object_id, self.payment.key, self.payment.cents)
            self.paid = True


class Order(DurableObject):
    """Has its card charged by a message, and gets the outcome by another one."""

    status: str = "new"

    @handler
    def pay(self, cents: int) -> None:
        """Begin the payment, unless one has begun. May be repeated, but needn't be."""
        if self.status in ("new", "declined"):
            self.status = "being paid"
            charge = self.ctx.outgoing(reply=Order.charged, failed=Order.refused)
            charge.send(Payment.charge, self.ctx.object_id, cents)

    @handler
    def charged(self, cents: int) -> None:
        """The bank has paid."""
        self.status = "paid"

    @handler
    def refused(self, failure: SendFailed) -> None:
        """The bank doesn't pay."""
        self.status = "declined"


class Payment(DurableObject):
    """The payments of one order.

    While it waits for the bank, the order itself can be called.
    """

    @handler(retry=Retry(initial=1, maximum=60), expected=CardDeclined)
    async def charge(self, cents: int) -> int:
        """Charge the card. Each attempt of a message has the same key, so the bank does it once."""
        message = self.ctx.message
        assert message is not None, "it is sent, not called"
        await charge_card(self.ctx.object_id, message.id, cents)
        return cents

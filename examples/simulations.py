"""What may happen to the examples' objects, and what must hold all the same::

    pytest examples/simulations.py

`Carts` compares the shop's carts with a plain class, and follows their orders. `Payments` watches
the bank, which no crash undoes. `Transfers` counts the money of the demo's bank, `Auctions` that of
the auction house, and `Agents` the uses of a tool.

`HastyPayments` and `TwoAwaits` fail. They find the mistakes of `HastyOrder` and of two awaits, and
print how they come about in the fewest steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import invariant

from examples import agent, payments
from examples.agent import Agent, Answer, Entry, Model, ToolCall, Tools
from examples.auction import house
from examples.auction.house import Auction, Mailer, Refused, User
from examples.payments import HastyOrder
from examples.shop import Cart, EmptyCart, Order, OutOfStock, Warehouse
from trio_durable import DurableObject, WaitingMessage, handler
from trio_durable.cli.demo.bank import Account, transfer_by_awaits
from trio_durable.testing.simulate import Simulation, outside


class CartModel:
    """A cart as one would write it if nothing ever failed. Its methods are those of `Cart`."""

    object_id: str

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.orders = 0

    def add(self, sku: str, quantity: int) -> Any:
        self.items[sku] = self.items.get(sku, 0) + quantity
        return {"sku": sku, "quantity": self.items[sku]}

    def check_out(self) -> Any:
        if not self.items:
            raise EmptyCart
        self.orders += 1
        order, self.items = self.items, {}
        return {"order": f"{self.object_id}-{self.orders}", "items": order}

    def remove(self, sku: str) -> None:
        self.items.pop(sku, None)

    def contents(self) -> dict[str, int]:
        return self.items

    def expire(self) -> None:
        self.items = {}


class Carts(Simulation):
    """Carts are as their model says, those that aren't empty will expire, and no order is lost."""

    objects = (Cart, Order, Warehouse)
    models = {Cart: CartModel}  # noqa: RUF012  # nobody changes it
    delays = (3600, 86400, 604800)
    allowed = (OutOfStock,)
    left_out = ("Order.place", "Order.reserved", "Order.refused", "Warehouse.reserve")
    arguments = {  # noqa: RUF012
        "Cart.add.sku": st.sampled_from(["tea", "milk"]),
        "Cart.add.quantity": st.integers(1, 600),
        "Cart.remove.sku": st.sampled_from(["tea", "milk"]),
    }

    @invariant()
    def what_is_in_a_cart_will_expire(self) -> None:
        for user, cart in self.stored(Cart).items():
            expiring = [alarm.name for alarm in self.alarms(Cart, user)]
            assert expiring == (["expire"] if cart.items else [])

    @invariant()
    def each_order_is_decided(self) -> None:
        made = {
            f"{user}-{n + 1}"
            for user, cart in self.stored(Cart).items()
            for n in range(cart.orders)
        }
        orders = self.stored(Order)
        on_the_way = {message.receiver.object_id for message in self.messages}
        assert orders.keys() <= made <= orders.keys() | on_the_way

    @invariant()
    def what_is_taken_is_what_orders_have(self) -> None:
        if self.messages:
            return
        taken: Counter[str] = Counter()
        for order in self.stored(Order).values():
            assert order.status in ("ready", "refused")
            taken.update(order.items if order.status == "ready" else {})
        for warehouse in self.stored(Warehouse).values():
            assert taken == warehouse.taken


class Bank(Simulation):
    """The bank, for either kind of order."""

    order_class: type[payments.Order | HastyOrder]
    allowed = (ConnectionError,)

    def __init__(self) -> None:
        self.charged: dict[str, str] = {}
        """Whose card was charged, by the key of the payment."""
        super().__init__()

    @outside(payments, "charge_card", fails_with=ConnectionError)
    async def charge_card(self, order_id: str, key: str, cents: int) -> None:
        self.charged.setdefault(key, order_id)

    @invariant()
    def no_card_is_charged_twice(self) -> None:
        assert all(times == 1 for times in Counter(self.charged.values()).values())

    @invariant()
    def what_is_paid_was_charged(self) -> None:
        for order_id, order in self.stored(self.order_class).items():
            is_paid = order.paid if isinstance(order, HastyOrder) else order.status == "paid"
            assert not is_paid or order_id in self.charged.values()


class Payments(Bank):
    """Every card is charged once, and what was begun comes to an end."""

    objects = (payments.Order, payments.Payment)
    order_class = payments.Order
    # Messages are for these.
    left_out = ("Order.charged", "Order.refused", "Payment.charge")

    @invariant()
    def what_was_begun_is_paid_in_the_end(self) -> None:
        on_the_way = {message.receiver.object_id for message in self.messages}
        for order_id, order in self.stored(payments.Order).items():
            assert order.status == "paid" or order_id in on_the_way


class HastyPayments(Bank):
    """Fails; `tests/testing/simulate` sees to that."""

    objects = (HastyOrder,)
    order_class = HastyOrder


def amount_of(message: WaitingMessage) -> int:
    """The money in a message."""
    assert isinstance(message.arguments, dict)
    return int(message.arguments["amount"])


class Clerk(DurableObject):
    """Transfers money as the first bank of the demo does."""

    @handler
    async def transfer(self, payer: str, payee: str, amount: int) -> None:
        await transfer_by_awaits(payer, payee, amount)


class Money(Simulation):
    """The demo's bank, for either kind of transfer: all money is in accounts or on its way."""

    ids = ("ada", "bob")
    left_out: ClassVar[Sequence[str]] = ("Account.withdraw", "Account.deposit")

    @invariant()
    def no_money_is_lost_or_made(self) -> None:
        changes = sum(account.balance - 1_000 for account in self.stored(Account).values())
        assert changes + sum(map(amount_of, self.messages)) == 0


class Transfers(Money):
    """Holds: a transfer is one commit, with a message in it."""

    objects = (Account,)
    arguments = {  # noqa: RUF012
        "Account.transfer.payee": st.sampled_from(Money.ids),
        "Account.transfer.amount": st.integers(1, 9),
    }


class TwoAwaits(Money):
    """Fails; `tests/example_apps` sees to that."""

    objects = (Account, Clerk)
    left_out = (*Money.left_out, "Account.transfer")
    arguments = {  # noqa: RUF012
        "Clerk.transfer.payer": st.sampled_from(Money.ids),
        "Clerk.transfer.payee": st.sampled_from(Money.ids),
        "Clerk.transfer.amount": st.integers(1, 9),
    }


class Auctions(Simulation):
    """No money appears or vanishes, and reservations are those of leading bids."""

    objects = (Auction, Mailer, User)
    ids = ("ada", "bob")
    allowed = (Refused,)
    delays = (5, 60, 86400)
    left_out = ("Auction.offer", "Mailer.send", "User.release", "User.pay", "User.receive")
    arguments = {  # noqa: RUF012
        "Auction.begin.title": st.just("a lamp"),
        "Auction.begin.seller": st.sampled_from(ids),
        "Auction.begin.minutes": st.just(1),
        "User.bid.auction": st.sampled_from(ids),
        "User.bid.amount": st.integers(1, 900),
        "User.sign_up.zone": st.sampled_from(["UTC", "America/New_York"]),
    }

    @outside(house, "send_mail")
    async def send_mail(self, user: str, lines: list[str], key: str) -> None:
        assert lines

    @invariant()
    def no_money_is_lost_or_made(self) -> None:
        users = self.stored(User)
        changes = sum(user.balance - house.CREDIT for user in users.values())
        on_the_way = [each for each in self.messages if each.handler == "receive"]
        assert changes + sum(map(amount_of, on_the_way)) == 0

    @invariant()
    def leading_bids_are_reserved(self) -> None:
        if self.messages:
            return  # an offer, a release or a payment is still to come
        leading: Counter[str] = Counter()
        for each in self.stored(Auction).values():
            if each.status == "open" and each.leader is not None:
                leading[each.leader] += each.price
        for name, user in self.stored(User).items():
            assert user.reserved == leading[name]
            assert 0 <= user.reserved <= user.balance


class Agents(Simulation):
    """A refund that a person has approved happens once, and every question is answered."""

    objects = (Agent, Model, Tools)
    ids = ("ada",)
    allowed = (ConnectionError,)
    delays = (60, 8 * 86400)
    left_out = ("Agent.thought", "Agent.used", "Agent.failed", "Model.next_step", "Tools.use")
    arguments = {"Agent.ask.text": st.just("my lamp is broken")}  # noqa: RUF012

    def __init__(self) -> None:
        self.refunds: Counter[str] = Counter()
        """The numbers of requests, by the key of the refund."""
        super().__init__()

    @outside(agent, "complete", fails_with=ConnectionError)
    async def complete(self, history: list[Entry]) -> Answer | ToolCall:
        if history[-1].role == "tool":
            return Answer(history[-1].text)
        return ToolCall("refund", "5")

    @outside(agent, "use_tool", fails_with=ConnectionError)
    async def use_tool(self, call: ToolCall, key: str) -> str:
        self.refunds[key] += 1
        return "refunded"

    @invariant()
    def each_refund_is_in_the_history(self) -> None:
        if self.messages or self.dead_messages:
            return
        noted = sum(
            Entry("tool", "refunded") in each.history for each in self.stored(Agent).values()
        )
        assert bool(noted) == bool(self.refunds)

    @invariant()
    def an_agent_that_waits_has_a_deadline(self) -> None:
        for name, each in self.stored(Agent).items():
            alarms = [alarm.name for alarm in self.alarms(Agent, name)]
            assert alarms == (["expire"] if each.to_approve is not None else [])


TestAgents = Agents.TestCase
TestAuctions = Auctions.TestCase
TestCarts = Carts.TestCase
TestPayments = Payments.TestCase
TestTransfers = Transfers.TestCase

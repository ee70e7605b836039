"""What may happen to the examples' objects, and what must hold all the same::

    pytest examples/simulations.py

`Carts` compares the shop's carts with a plain class, and follows their orders. `Payments` watches
the bank, which no crash undoes. The same for `HastyOrder` finds its mistake, and how it comes about
in the fewest steps.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant

from examples import payments
from examples.payments import HastyOrder
from examples.shop import Cart, EmptyCart, Order, OutOfStock, Warehouse
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


TestCarts = Carts.TestCase
TestPayments = Payments.TestCase

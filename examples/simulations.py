"""What may happen to the examples' objects, and what must hold all the same::

    pytest examples/simulations.py

`Carts` compares the shop's carts with a plain class. `Payments` watches the bank, which no crash
undoes. The same for `HastyOrder` finds its mistake, and how it comes about in the fewest steps.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant

from examples import payments
from examples.payments import HastyOrder, Order
from examples.shop import Cart, EmptyCart, KeyReused
from trio_durable.testing.simulate import Simulation, outside


class CartModel:
    """A cart as one would write it if nothing ever failed. Its methods are those of `Cart`."""

    object_id: str

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.orders = 0
        self.requests: dict[str, tuple[list[Any], Any]] = {}

    def add(self, key: str, sku: str, quantity: int) -> Any:
        if key not in self.requests:
            self.items[sku] = self.items.get(sku, 0) + quantity
            answer = {"sku": sku, "quantity": self.items[sku]}
            self.requests[key] = (["add", sku, quantity], answer)
        return self._answer(key, ["add", sku, quantity])

    def check_out(self, key: str) -> Any:
        if key not in self.requests:
            if not self.items:
                raise EmptyCart
            self.orders += 1
            answer = {"order": f"{self.object_id}-{self.orders}", "items": self.items}
            self.requests[key] = (["check out"], answer)
            self.items = {}
        return self._answer(key, ["check out"])

    def remove(self, sku: str) -> None:
        self.items.pop(sku, None)

    def contents(self) -> dict[str, int]:
        return self.items

    def expire(self) -> None:
        self.items = {}

    def _answer(self, key: str, request: list[Any]) -> Any:
        first, answer = self.requests[key]
        if first != request:
            raise KeyReused
        return answer


class Carts(Simulation):
    """Carts are as their model says, and those that aren't empty will expire."""

    objects = (Cart,)
    models = {Cart: CartModel}  # noqa: RUF012  # nobody changes it
    delays = (3600, 86400, 604800)
    arguments = {  # noqa: RUF012
        "Cart.add.key": st.sampled_from(["1", "2", "3"]),
        "Cart.add.sku": st.sampled_from(["tea", "milk"]),
        "Cart.add.quantity": st.integers(1, 3),
        "Cart.check_out.key": st.sampled_from(["3", "4"]),
        "Cart.remove.sku": st.sampled_from(["tea", "milk"]),
    }

    @invariant()
    def what_is_in_a_cart_will_expire(self) -> None:
        for user, cart in self.stored(Cart).items():
            expiring = [alarm.name for alarm in self.alarms(Cart, user)]
            assert expiring == (["expire"] if cart.items else [])


class Bank(Simulation):
    """The bank, for either kind of order."""

    order_class: type[Order | HastyOrder]
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
            assert not order.paid or order_id in self.charged.values()


class Payments(Bank):
    """Every card is charged once, and what was begun comes to an end."""

    objects = (Order,)
    order_class = Order

    @invariant()
    def what_was_begun_is_paid_in_the_end(self) -> None:
        for order_id, order in self.stored(Order).items():
            assert order.paid or self.alarms(Order, order_id)


class HastyPayments(Bank):
    """Fails; `tests/testing/simulate` sees to that."""

    objects = (HastyOrder,)
    order_class = HastyOrder


TestCarts = Carts.TestCase
TestPayments = Payments.TestCase

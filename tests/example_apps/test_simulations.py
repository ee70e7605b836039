"""The simulations of the examples hold, and find the mistakes that they are there for."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings

from examples.auction.house import Auction, User
from examples.simulations import Agents, Auctions, Transfers, TwoAwaits
from trio_durable.testing.simulate import Simulation, run_simulation


@pytest.mark.parametrize("simulation", [Transfers, Auctions, Agents])
def test_they_hold(simulation: type[Simulation]) -> None:
    run_simulation(simulation, seed=1, stories=20)


def test_the_dual_write_of_two_awaits_is_found() -> None:
    with pytest.raises(AssertionError) as raised:
        run_simulation(TwoAwaits, seed=1, stories=100)
    story = "\n".join(raised.value.__notes__)
    assert "Clerk" in story
    assert "fault=" in story


def forgetful(self: Auction, user: str, amount: int) -> None:
    """`Auction.offer`, where the bid that is outbid keeps its money reserved."""
    if self.closes_at is None or amount <= self.price:
        self.ctx.send(User.release, user, self.ctx.object_id, amount)
        return
    self.leader, self.price = user, amount


def test_a_forgotten_release_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vars(Auction)["offer"].function, "__code__", forgetful.__code__)
    # It need not be the shortest story.
    found = settings(Auctions.TestCase.settings, phases=[Phase.generate])
    monkeypatch.setattr(Auctions.TestCase, "settings", found)
    with pytest.raises(AssertionError):
        run_simulation(Auctions, seed=1, stories=200)

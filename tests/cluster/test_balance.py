"""The plan of hand-overs: even shares, few moves, and the same plan for all."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable._cluster.balance import plan
from trio_durable.storage import Member, View

SHARDS = 128


def member(node_id: str, *, leaves: bool = False, serves: bool = True, release: int = 0) -> Member:
    return Member(node_id, "here", 1, "1", "unix:///x", serves, leaves, {}, release, 0.0)


class Division:
    """Shards and members, whose plans are carried out."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.owners: list[str | None] = [None] * SHARDS
        self.terms = [0] * SHARDS

    def join(self, each: Member) -> None:
        self.members[each.node_id] = each
        self.owners = [owner or each.node_id for owner in self.owners]
        self.settle()

    def leave(self, node_id: str) -> None:
        old = self.members[node_id]
        self.members[node_id] = member(node_id, leaves=True, release=old.release)
        self.settle()
        assert node_id not in self.owners
        del self.members[node_id]

    def settle(self) -> None:
        """Carry out the plans of all, which are made from one view, and of which none is left."""
        for _ in range(2):
            view = View(1, dict(self.members), tuple(self.owners), tuple(self.terms))
            plans = {each: plan(view, each) for each in self.members}
            for giver, given_away in plans.items():
                for shard, taker in given_away.items():
                    assert self.owners[shard] == giver
                    self.owners[shard] = taker
                    self.terms[shard] += 1
        view = View(1, dict(self.members), tuple(self.owners), tuple(self.terms))
        assert not any(plan(view, each) for each in self.members)

    def counts(self) -> Counter[str]:
        return Counter(owner for owner in self.owners if owner is not None)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=SHARDS, max_size=SHARDS),
    st.sets(st.sampled_from("abcdefgh"), min_size=1),
    st.sets(st.sampled_from("abcdefgh")),
)
def test_plans_of_all_members_add_up_to_even_shares(
    owners: list[str], up: set[str], leaving: set[str]
) -> None:
    division = Division()
    division.owners = [owner if owner in up | leaving else None for owner in owners]
    for each in up | leaving:
        division.members[each] = member(each, leaves=each not in up)
    division.settle()
    shares = [division.counts()[each] for each in up]
    assert max(shares) - min(shares) <= 1
    assert set(division.counts()) <= up


def test_nothing_moves_for_a_difference_of_one() -> None:
    division = Division()
    for name in "abc":
        division.join(member(name))
    before = list(division.owners)
    assert sorted(division.counts().values()) == [42, 43, 43]
    division.settle()
    assert division.owners == before


def test_a_member_that_only_calls_gets_nothing() -> None:
    division = Division()
    division.join(member("a"))
    division.members["b"] = member("b", serves=False)
    division.settle()
    assert division.counts() == {"a": SHARDS}


def test_members_of_an_older_release_get_nothing_and_keep_their_shares() -> None:
    division = Division()
    division.join(member("a", release=1))
    division.join(member("b", release=1))
    division.join(member("c", release=2))
    assert division.counts() == {"a": 43, "b": 43, "c": 42}
    division.leave("a")
    assert division.counts() == {"b": 43, "c": 85}


def test_no_object_moves_more_than_twice_in_a_rolling_deployment() -> None:
    for size in range(1, 9):
        division = Division()
        for n in range(size):
            division.join(member(f"old{n}", release=1))
        division.terms = [0] * SHARDS
        for n in range(size):
            division.join(member(f"new{n}", release=2))
            division.leave(f"old{n}")
        assert max(division.terms) <= 2, size
        assert max(division.counts().values()) - min(division.counts().values()) <= 1

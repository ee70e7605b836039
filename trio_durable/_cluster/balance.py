"""Balance: the shards that a member gives to others.

All members plan from the same view and by the same rule, so the gifts of several members add up.
The members with most shards give to those with fewest, until the counts differ by one at most. A
member that leaves gives all that it has. A member of an older release of the application gets
nothing while a newer one is up, and keeps its share.

A member gives the shards with the lowest terms, which have moved least. So in a rolling deployment
whose members tell their releases, no object moves more than twice.

Rendezvous hashing would need no plan, but leaves the fullest of 100 members with 1.7 to 2.9 times
the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..storage import View


def plan(view: View, me: str) -> dict[int, str]:
    """The shards that a member has to give away in a view, and the members that get them."""
    takers = view.takers()
    if not takers:
        return {}
    counts = Counter(owner for owner in view.owners if owner is not None)
    targets = _targets(view, takers, counts)
    excess = {owner: max(counts[owner] - targets.get(owner, 0), 0) for owner in sorted(counts)}
    receivers = [taker for taker in takers for _ in range(max(targets[taker] - counts[taker], 0))]
    begin = sum(excess[owner] for owner in excess if owner < me)
    mine = sorted(
        (shard for shard, owner in enumerate(view.owners) if owner == me),
        key=lambda shard: (view.terms[shard], shard),
    )
    given = mine[: excess.get(me, 0)]
    return dict(zip(given, receivers[begin : begin + len(given)], strict=False))


def _targets(view: View, takers: Sequence[str], counts: Counter[str]) -> dict[str, int]:
    """The number of shards that each member is to have. Those with most keep the odd ones."""
    total = sum(counts.values())
    up = [each.node_id for each in view.members.values() if each.serves and not each.is_leaving]
    older = set(up).difference(takers)
    targets = {member: min(counts[member], -(-total // len(up))) for member in older}
    share, odd = divmod(total - sum(targets.values()), len(takers))
    order = sorted(takers, key=lambda taker: (-counts[taker], taker))
    return targets | {taker: share + (at < odd) for at, taker in enumerate(order)}

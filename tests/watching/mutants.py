"""The library with one guarantee of watching broken, to see that the tests here notice.

    PYTHONPATH=tests python -m watching.mutants           all mutants
    PYTHONPATH=tests python -m watching.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_WATCHES = (*BOUNDED_TESTS, "watching/test_watches.py", "-k")
CHECKS: dict[str, tuple[str, ...]] = {
    "the first": (*_WATCHES, "trio and (begins or wins or waits_for or together)"),
    "changes": (*_WATCHES, "trio and (durable or cancelled or share or deletion or rest)"),
    "failures": (*_WATCHES, "trio and (failed or doubt or failure or fails)"),
    "nothing changes": (*_WATCHES, "trio and (watched_object or hub_listens or turn)"),
    "tenants": (*_WATCHES, "trio and tenant"),
    "the end": (*_WATCHES, "trio and (end or end_watches)"),
    "pacing": (*_WATCHES, "trio and groups"),
    "histories": (*BOUNDED_TESTS, "watching/test_model.py", "-k", "trio"),
    "clusters": (*BOUNDED_TESTS, "watching/test_clusters.py", "-k", "trio"),
    "histories of clusters": (*BOUNDED_TESTS, "watching/test_cluster_model.py", "-k", "trio"),
}

_SEEN_BEFORE_THE_WAIT = (
    "            await waiter.wait()\n",
    """            seen = dict(self._seen)
            self._seen = {cell: cell.version + 1 for cell in seen}
            await waiter.wait()
            self._seen = seen
""",
)

MUTANTS = [
    Mutant(
        "deletion_not_told",
        "a deletion isn't reported",
        "changes",
        "_persistence/listeners.py",
        "if self.states is not None and (ticket.delete or ticket.state is not None):",
        "if self.states is not None and ticket.state is not None:",
    ),
    Mutant(
        "doubts_ignored_in_histories",
        "a failed commit doesn't have the state read again",
        "histories",
        "_watching/hub.py",
        "            self._doubt(cell)\n\n    def loaded",
        "            pass\n\n    def loaded",
    ),
    Mutant(
        "seen_before_the_wait_in_histories",
        "a version counts as seen before the wait for it has ended",
        "histories",
        "_api/watch.py",
        *_SEEN_BEFORE_THE_WAIT,
    ),
    Mutant(
        "told_before_refusals",
        "commits are reported before it is known which were refused",
        "failures",
        "_persistence/group_commit.py",
        "        self.batches += 1\n        if isinstance(outcome",
        """        self.batches += 1
        for ticket in batch:
            self.listeners.succeeded(ticket)
        if isinstance(outcome""",
    ),
    Mutant(
        "told_when_submitted",
        "a commit is reported when it is submitted",
        "changes",
        "_persistence/group_commit.py",
        "        self._dirty[owner] = None\n        pending_bytes",
        """        self.listeners.succeeded(ticket)
        self._dirty[owner] = None
        pending_bytes""",
    ),
    Mutant(
        "read_before_registered",
        "the state is read before commits are heard of",
        "the first",
        "_watching/hub.py",
        "        self._group_commit.listeners.states = self\n",
        "",
        (
            (
                "        cell.is_looked_for = False\n        if not self",
                """        cell.is_looked_for = False
        self._group_commit.listeners.states = self
        if not self""",
            ),
        ),
    ),
    Mutant(
        "read_over_a_newer_commit",
        "a read counts though a commit was reported since it began",
        "the first",
        "_watching/hub.py",
        "if cell is None or (cell.is_looked_for and cell.look_is_outdated):",
        "if cell is None:",
    ),
    Mutant(
        "read_during_a_commit",
        "a read counts though a commit is in the writer's hands",
        "the first",
        "_watching/hub.py",
        "        if not self._is_in_writer(key):\n",
        "        if True:\n",
    ),
    Mutant(
        "seen_before_the_wait",
        "a version counts as seen before the wait for it has ended",
        "changes",
        "_api/watch.py",
        *_SEEN_BEFORE_THE_WAIT,
    ),
    Mutant(
        "maximum_of_revisions",
        "a lower revision isn't adopted",
        "changes",
        "_watching/cell.py",
        "        self.fault = None\n        if self.version and ",
        "        self.fault = None\n        if revision < self.revision:\n"
        "            return False\n        if self.version and ",
    ),
    Mutant(
        "uncertain_with_alarms_alone",
        "a failed commit has the state read again only if it has alarms",
        "failures",
        "_persistence/listeners.py",
        "        if self.states is not None:\n            self.states.uncertain",
        "        if self.states is not None and ticket.alarms is not None:\n"
        "            self.states.uncertain",
    ),
    Mutant(
        "loads_not_told",
        "a load isn't reported",
        "failures",
        "_persistence/batched_load.py",
        "if self.listener is not None:",
        'if self.listener is not None and type(loading).__name__ == "_Look":',
    ),
    Mutant(
        "doubts_forgotten",
        "a read that was under way at a failure isn't repeated",
        "failures",
        "_watching/hub.py",
        "        if cell.look_again:\n",
        "        if False:\n",
    ),
    Mutant(
        "drop_not_told",
        "the drop of a tenant isn't reported",
        "tenants",
        "_runtime/tenant_drop.py",
        "        opened.hub.dropped(name)\n",
        "",
    ),
    Mutant(
        "cell_kept",
        "a cell stays when its last watcher is gone",
        "nothing changes",
        "_watching/cells.py",
        "if found is not None and found is cell and cell.watchers <= 0:",
        "if False:",
    ),
    Mutant(
        "order_of_use_touched",
        "a watch counts as a use of the object",
        "nothing changes",
        "_runtime/open_runtime.py",
        "(each.find(key.address) for",
        "(each.use(key.address) for",
    ),
    Mutant(
        "allowed_in_turns",
        "a turn may open a watch",
        "nothing changes",
        "_api/watch.py",
        "if opened.services.wait_graph.caller() is not None:",
        "if False:",
    ),
    Mutant(
        "shared_instance",
        "all accesses to a state return one instance",
        "changes",
        "_api/snapshot.py",
        '            return cast("T_co", codec.decode(self.key, self._row))\n',
        """            shared = vars(codec).setdefault("shared", {})
            if self._row not in shared:
                shared[self._row] = codec.decode(self.key, self._row)
            return cast("T_co", shared[self._row])
""",
    ),
    Mutant(
        "ended_before_the_last_commits",
        "watches end before the last commits of the grace period",
        "the end",
        "_runtime/ending.py",
        "        self.services.closing = self.services.closed = True\n        self._closed.set()\n",
        "        self.services.closing = self.services.closed = True\n        self._closed.set()\n"
        "        self.hub.end()\n",
    ),
    Mutant(
        "pacing_removed",
        "all watchers are woken at once",
        "pacing",
        "_watching/pacing.py",
        "        left = GROUP\n",
        "        left = 1_000_000\n",
    ),
    Mutant(
        "maximum_of_revisions_in_clusters",
        "a lower revision of another owner isn't adopted",
        "clusters",
        "_watching/cell.py",
        "        self.fault = None\n        if self.version and ",
        "        self.fault = None\n        if 0 < revision < self.revision:\n"
        "            return False\n        if self.version and ",
    ),
    Mutant(
        "joined_without_confirmation",
        "a watcher of an object elsewhere begins with the state that its process has",
        "clusters",
        "_cluster/routed_hub.py",
        "if cell.version and cell.fault is None and self._is_here(cell):",
        "if cell.version and cell.fault is None:",
    ),
    Mutant(
        "answered_before_the_read",
        "an owner answers a look with what it has, before the read that follows it",
        "clusters",
        "_watching/session.py",
        "if is_answer and cell.version and cell.confirmed >= found.needed:",
        "if is_answer and cell.version:",
    ),
    Mutant(
        "read_before_registered_elsewhere",
        "a look is numbered as of the next one, so that older news answers it",
        "clusters",
        "_cluster/routed_hub.py",
        "            cell.wanted = self._look + 1\n",
        "            cell.wanted = self._look\n",
    ),
    Mutant(
        "former_owner_believed",
        "news of a source that isn't the cell's counts",
        "clusters",
        "_cluster/routed_hub.py",
        "if cell is None or cell.feed is not feed or news.look < cell.since:",
        "if cell is None:",
    ),
    Mutant(
        "former_subscription_believed",
        "news of a subscription before the present one counts",
        "clusters",
        "_cluster/routed_hub.py",
        "if cell is None or cell.feed is not feed or news.look < cell.since:",
        "if cell is None or cell.feed is not feed:",
    ),
    Mutant(
        "tenure_unchecked",
        "a subscription outlives the time for which the object is in its process",
        "clusters",
        "_watching/session.py",
        "if cell.has_ended or found.tenure != self._tenure_of(key):",
        "if cell.has_ended:",
    ),
    Mutant(
        "lease_unchecked",
        "an owner whose lease is over confirms states",
        "clusters",
        "_cluster/shard_map.py",
        "if view is None or not self._here[shard] or not self._membership.lease.is_valid():",
        "if view is None or not self._here[shard]:",
    ),
    Mutant(
        "views_ignored",
        "a watch stays where it was when a view says that the object is elsewhere",
        "histories of clusters",
        "_cluster/routed_hub.py",
        "            if self._may_have_moved:\n",
        "            if False:\n",
    ),
    Mutant(
        "moves_kept_back",
        "an owner that has given an object away doesn't say so",
        "clusters",
        "_watching/session.py",
        "            self.note(key)\n\n    def take",
        "            pass\n\n    def take",
    ),
    Mutant(
        "drop_not_told_to_other_processes",
        "the drop of a tenant isn't reported to processes that watch its objects",
        "clusters",
        "_cluster/routed_hub.py",
        "        self._hub.dropped(tenant)  # the watches of other processes end, too\n",
        "",
    ),
    Mutant(
        "drop_not_told_to_members",
        "the drop of a tenant by another member isn't reported",
        "clusters",
        "_runtime/tenant_barrier.py",
        "            self._opened.hub.dropped(name)\n        self._admit(name, held)",
        "            pass\n        self._admit(name, held)",
    ),
    Mutant(
        "round_cut_short",
        "a change while watchers are woken for the one before isn't followed by a round of its own",
        "changes",
        "_watching/pacing.py",
        "        cell.to_examine = len(cell.parked)\n",
        "        cell.to_examine = cell.to_examine or min(1, len(cell.parked))\n",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m watching.mutants", MUTANTS, CHECKS))

"""The library with one guarantee of a cluster broken, to see that the tests here notice.

    PYTHONPATH=tests python -m cluster.mutants           all mutants
    PYTHONPATH=tests python -m cluster.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_FILE = (*BOUNDED_TESTS, "cluster/test_file.py", "-k")
_PROCESSES = (*BOUNDED_TESTS, "cluster/test_processes.py", "-k")
_MEMBERS = (*BOUNDED_TESTS, "cluster/test_members.py", "-k")
_ROWS = (*BOUNDED_TESTS, "storage/postgres/test_nodes.py", "storage/postgres/test_members.py", "-k")
_INTERLEAVED = (*BOUNDED_TESTS, "storage/postgres/test_interleavings.py", "-k")
CHECKS: dict[str, tuple[str, ...]] = {
    "succession": (*_FILE, "trio and (take or alarms or under_way or not_known or order)"),
    "closing": (*_FILE, "trio and (closing or close or answered)"),
    "files": (*_FILE, "trio and (removed or note or released or serves_nothing)"),
    "deaths": (*_PROCESSES, "only_a_def or milliseconds"),
    "forks": (*_PROCESSES, "forked or something_keeps"),
    "leaving": (*_PROCESSES, "terminated or what_was_answered or administration"),
    "end of a link": (*BOUNDED_TESTS, "cluster/test_link_end.py"),
    "chaos": ("cluster.chaos", "--minutes", "1", "--seed", "1"),
    "chaos of members": ("cluster.chaos", "--storage", "postgres", "--minutes", "2", "--seed", "1"),
    "chaos with lost commits": (
        *("cluster.chaos", "--storage", "lossy", "--minutes", "1", "--seed", "1"),
    ),
    "service": (*BOUNDED_TESTS, "cluster/test_service.py", "-k", "trio"),
    "leases of members": (*_MEMBERS, "trio and lease"),
    "places of members": (*_MEMBERS, "trio and (memory or leaves or leave or shards)"),
    "alarms of members": (*_MEMBERS, "trio and (alarms or claims)"),
    "interleaved saves": (*_INTERLEAVED, "save and (removed or another)"),
    "interleaved acquisitions": (*_INTERLEAVED, "(acquire or beat) and joins"),
    "acquisitions": (
        *(*BOUNDED_TESTS, "storage/postgres/test_shards.py", "-k", "since_the_acquisition_began"),
    ),
    "interleaved clocks": (*_INTERLEAVED, "clock"),
    "standbys": (*BOUNDED_TESTS, "storage/postgres/test_servers.py", "-k", "standby"),
    "saves in doubt": (*BOUNDED_TESTS, "storage/postgres/test_shards.py", "-k", "save_in_doubt"),
    "rows": (*_ROWS, "writes_nothing or settled or claims or since_it_was_read"),
}

MUTANTS = [
    Mutant(
        "unknown_repeated",
        "a call of unknown outcome is made once more",
        "deaths",
        "_cluster/router.py",
        "if may_have_run and not repeatable:",
        "if False:",
    ),
    Mutant(
        "unknown_repeated_in_chaos",
        "the same",
        "chaos",
        "_cluster/router.py",
        "if may_have_run and not repeatable:",
        "if False:",
    ),
    Mutant(
        "async_reads_repeated",
        "a read-only async def handler, which may have called others, is repeated",
        "deaths",
        "_cluster/routed_calls.py",
        "repeatable = handler.readonly and not handler.is_async",
        "repeatable = handler.readonly",
    ),
    Mutant(
        "reads_not_repeated",
        "a read-only def handler isn't repeated",
        "deaths",
        "_cluster/routed_calls.py",
        "repeatable = handler.readonly and not handler.is_async",
        "repeatable = False",
    ),
    Mutant(
        "begun_has_moved",
        "a turn that had begun is answered with `moved`, and made once more",
        "succession",
        "_cluster/answer.py",
        "has_begun = submission.has_begun",
        "has_begun = False",
    ),
    Mutant(
        "queued_is_lost",
        "a call that never ran is answered as one that may have",
        "succession",
        "_cluster/answer.py",
        "has_begun = submission.has_begun",
        "has_begun = True",
    ),
    Mutant(
        "two_owners",
        "a process that doesn't get the lock serves all the same",
        "chaos",
        "_runtime/sides.py",
        "            except StorageInUse as error:\n                return error\n",
        "            except StorageInUse:\n                pass\n",
    ),
    Mutant(
        "owner_unchecked",
        "a process that isn't the owner serves what comes to it",
        "files",
        "_cluster/places.py",
        "decided(self.is_owner)",
        "decided(True)",
    ),
    Mutant(
        "closing_unchecked",
        "an owner that closes takes calls, and refuses them with an error",
        "succession",
        "_cluster/service.py",
        "            if self._services.closing and not is_watched:\n"
        "                incoming.fail(MOVED_ANSWER)\n                return\n",
        "",
    ),
    Mutant(
        "gone_caller_keeps_a_place",
        "a call whose caller has gone takes a place until its commit is durable",
        "service",
        "_cluster/answer.py",
        "elif self.has_run:",
        "elif False:",
    ),
    Mutant(
        "exit_for_the_caller",
        "Control-C in a turn is answered to the other process, and ends neither",
        "service",
        "_cluster/answer.py",
        "            services.exit(error)\n",
        "",
    ),
    Mutant(
        "one_context",
        "calls of other processes share their context variables",
        "service",
        "_cluster/routed_calls.py",
        "step, context = services.loop.interruptible, copy_context()",
        "step = services.loop.interruptible\n"
        "            context = self.__dict__.setdefault('context', copy_context())",
    ),
    Mutant(
        "note_first",
        "the note is written before the process listens",
        "files",
        "_cluster/file_endpoint.py",
        "        listening = await self._listen()\n        try:\n            await self._write",
        "        await self._write_note(self._address)\n"
        "        listening = await self._listen()\n        try:\n            await self._write",
    ),
    Mutant(
        "lock_kept",
        "a take-over that fails keeps the lock",
        "succession",
        "_cluster/file_cluster.py",
        "            await self._release()\n",
        "            pass\n",
    ),
    Mutant(
        "alarms_not_taken_over",
        "a new owner has no scheduler",
        "succession",
        "_cluster/file_cluster.py",
        "        self._owns()\n",
        "",
    ),
    Mutant(
        "old_peer_kept",
        "calls go to a process that has said that it isn't the owner any more",
        "succession",
        "_cluster/places.py",
        "        if self._peer is peer:\n            self._peer = None\n",
        "        pass\n",
    ),
    Mutant(
        "timeout_twice",
        "a call that becomes local has its whole timeout once more",
        "succession",
        "_cluster/routed_calls.py",
        "timeout = max(began + timeout - loop.now(), 0.0)",
        "pass",
    ),
    Mutant(
        "note_not_restored",
        "a note that was removed stays away",
        "files",
        "_cluster/file_endpoint.py",
        "if not is_noted and not self._is_closed:",
        "if False:",
    ),
    Mutant(
        "socket_not_restored",
        "a socket that was removed stays away",
        "files",
        "_cluster/file_endpoint.py",
        "        if not self._listening.is_at_path:\n",
        "        if False:\n",
    ),
    Mutant(
        "sockets_kept_by_forks",
        "a forked process keeps the sockets",
        "forks",
        "_cluster/address.py",
        "            os.dup2(null, descriptor, inheritable=False)\n",
        "            pass\n",
    ),
    Mutant(
        "lock_kept_by_forks",
        "a forked process keeps the lock",
        "forks",
        "storage/sqlite/_lock.py",
        "    for lock in list(_held):\n        with contextlib.suppress(OSError):\n"
        "            lock.release()\n",
        "    pass\n",
    ),
    Mutant(
        "file_kept_by_forks",
        "a forked process keeps the lock of the file itself",
        "forks",
        "storage/sqlite/_database_file.py",
        "        file.abandon()\n",
        "        pass\n",
    ),
    Mutant(
        "served_socket_not_replaced",
        "a socket that a copy listens at keeps an owner from listening",
        "forks",
        "_cluster/file_endpoint.py",
        'self._may_replace = may_replace and sys.platform == "linux"',
        "self._may_replace = False",
    ),
    Mutant(
        "goodbye_without_answers",
        "an owner that leaves drops the answers that it has given",
        "leaving",
        "_cluster/peer.py",
        "self._link.close(reason, self._accepted)",
        "self.abort(reason)",
    ),
    Mutant(
        "goodbye_says_nothing",
        "a goodbye doesn't say which requests were accepted",
        "leaving",
        "_cluster/peer.py",
        "self._link.close(reason, self._accepted)",
        "self._link.close(reason)",
    ),
    Mutant(
        "goodbye_before_commits",
        "an owner says goodbye before its commits are durable and their calls answered",
        "leaving",
        "_runtime/open_runtime.py",
        "            self._leave_others,\n            self._drain,\n",
        "            self._drain,\n            self._leave_others,\n",
    ),
    Mutant(
        "failed_write_ends_link",
        "a write that fails ends the link before what has arrived is read",
        "end of a link",
        "_cluster/link.py",
        "            if self.closing is None:\n"
        "                self.closing = LinkEnd(EndKind.LOST, error_summary(error))\n",
        "            self.finish(LinkEnd(EndKind.LOST, error_summary(error)))\n",
    ),
    Mutant(
        "closed_behind_goodbye",
        "a connection is closed as soon as the goodbye is written",
        "end of a link",
        "_cluster/link.py",
        "            await anyio.sleep(self._ttl / BEATS)\n            if self.closing",
        "            if self.closing",
    ),
    Mutant(
        "administration_cut_off",
        "an owner says goodbye before administration is answered",
        "closing",
        "_cluster/file_cluster.py",
        "        await self._answered()\n",
        "",
    ),
    Mutant(
        "no_grace_for_calls_elsewhere",
        "a runtime that closes cuts its calls to the owner off at once",
        "closing",
        "_runtime/open_runtime.py",
        "            await self.sharing.router.quiet()\n",
        "            pass\n",
    ),
    Mutant(
        "closed_router_waits",
        "calls of a closed runtime wait for an owner",
        "closing",
        "_cluster/router.py",
        "                self.places.moved(object_id, place)\n"
        "                if self._closed is not None:\n                    raise self._closed()\n",
        "                self.places.moved(object_id, place)\n",
    ),
    Mutant(
        "follows_to_the_end",
        "the task that looks for an owner is cut off by the closing of the storage",
        "closing",
        "_cluster/file_cluster.py",
        "self._early_tasks.start(self._follow",
        "self._tasks.start(self._follow",
    ),
    Mutant(
        "takes_over_while_closing",
        "a runtime that closes takes the file over",
        "closing",
        "_cluster/file_cluster.py",
        "if not self._settings.serve or self._is_retired:",
        "if not self._settings.serve:",
    ),
    Mutant(
        "reply_before_commit",
        "what a turn tells leaves before it is durable",
        "chaos",
        "_activations/resident.py",
        "if gate is None or (error is not None and not isinstance(error, Exception)):",
        "if True:",
    ),
    Mutant(
        "exception_before_commit",
        "an exception leaves before what it tells is durable",
        "service",
        "_activations/resident.py",
        "if gate is None or (error is not None and not isinstance(error, Exception)):",
        "if gate is None or error is not None:",
    ),
    Mutant(
        "exception_before_commit_on_the_spot",
        "the same, of a turn that runs where its request is read",
        "service",
        "_cluster/service.py",
        "if gate is None or (error is not None and not isinstance(error, Exception)):",
        "if gate is None or error is not None:",
    ),
    Mutant(
        "no_fence",
        "a node that was removed goes on to write",
        "rows",
        "storage/postgres/_nodes.py",
        "SELECT CASE WHEN count(*) = 1 THEN 1 ELSE ('{_DEPOSED_MARK} ' || count(*))::int END",
        "SELECT CASE WHEN count(*) = 1 THEN 1 ELSE 1 END",
    ),
    Mutant(
        "acknowledged_by_one_server",
        "a commit doesn't wait for the synchronous standby",
        "standbys",
        "storage/postgres/_session.py",
        "CASE WHEN {durability} = 'normal' THEN set_config('synchronous_commit', 'off', {local})",
        "CASE WHEN {durability} <> '' THEN set_config('synchronous_commit', 'local', {local})",
    ),
    Mutant(
        "one_incarnation",
        "a promoted standby is taken for its primary, so what it lacks stays in memory",
        "chaos with lost commits",
        "storage/postgres/_servers.py",
        """return f"{self.system or ''}/{self.started_at}/{self.timeline or ''}\"""",
        """return f"{self.system or ''}\"""",
    ),
    Mutant(
        "fence_without_lock",
        "the fence looks for the node's row without a lock, so a removal doesn't wait for the save",
        "interleaved saves",
        "storage/postgres/_nodes.py",
        "WHERE node_id = %s AND server = %s FOR KEY SHARE",
        "WHERE node_id = %s AND server = %s",
    ),
    Mutant(
        "fence_last",
        "a save locks objects before its node, and has these locks when the node is removed",
        "interleaved saves",
        "storage/postgres/_writer.py",
        "                self._nodes.begin(connection)\n                if new:\n",
        "                if new:\n",
        (
            (
                "                return self._apply_fresh(connection, batch, parts, new, now)\n",
                (
                    "                done = self._apply_fresh(connection, batch, parts, new, now)\n"
                    "                self._nodes.begin(connection)\n"
                    "                return done\n"
                ),
            ),
        ),
    ),
    Mutant(
        "fence_last_in_pipelines",
        "a hand-over doesn't wait for a save that waits for its objects before it locks its node",
        "saves in doubt",
        "storage/postgres/_writer.py",
        "            self._nodes.lock(connection)\n            for tenant, tables, part in found:\n"
        "                if tables is not None:\n"
        "                    results.append((tenant, tables.apply(connection, part, now)))\n",
        "            for tenant, tables, part in found:\n"
        "                if tables is not None:\n"
        "                    results.append((tenant, tables.apply(connection, part, now)))\n"
        "            self._nodes.lock(connection)\n",
    ),
    Mutant(
        "incarnation_in_beats_only",
        "a save reaches a promoted standby before its node has seen that",
        "interleaved saves",
        "storage/postgres/_nodes.py",
        "WHERE node_id = %s AND server = %s FOR KEY SHARE",
        "WHERE node_id = %s AND %s::text IS NOT NULL FOR KEY SHARE",
    ),
    Mutant(
        "nodes_before_shards",
        "nodes are read before shards, and an owner that isn't among them is taken for dead",
        "interleaved acquisitions",
        "storage/postgres/_shards.py",
        "        row = connection.execute(self._read, parameters, binary=True).fetchone()\n",
        "        early = connection.execute(self._read, parameters, binary=True).fetchone()[0]\n"
        "        row = connection.execute(self._read, parameters, binary=True).fetchone()\n"
        "        row = (early, *row[1:])\n",
        (
            (
                "            owners, terms = before.owners, before.terms\n",
                (
                    "            owners, terms = before.owners, before.terms\n"
                    "        known = {node.node_id for node in found}\n"
                    "        owners = [each and (each if UUID(each) in known else None)"
                    " for each in owners or ()]\n"
                ),
            ),
            ("        AND s.owner IS NULL AND passed = 1\n", "        AND passed = 1\n"),
        ),
    ),
    Mutant(
        "owner_looked_up",
        "a shard is acquired if no row of its owner is found, by the statement that acquires it",
        "acquisitions",
        "storage/postgres/_shards.py",
        " AND s.term = k.term\n        AND s.owner IS NULL AND passed = 1\n"
        "    ORDER BY s.shard FOR UPDATE OF s SKIP LOCKED",
        "\n        AND NOT EXISTS (SELECT FROM {{nodes}} AS n WHERE n.node_id = s.owner)"
        " AND passed = 1\n"
        "    ORDER BY s.shard FOR UPDATE OF s",
    ),
    Mutant(
        "clock_of_the_database",
        "a node is removed by its age, of which the database's clock decides",
        "interleaved clocks",
        "storage/postgres/_deaths.py",
        "if gone or now - silence.since >= node.ttl:",
        "if gone or node.age >= node.ttl:",
    ),
    Mutant(
        "answers_unchecked",
        "answers to other members leave without a lease",
        "leases of members",
        "_cluster/answer.py",
        "if lease is not None:",
        "if False:",
    ),
    Mutant(
        "placement_unchecked",
        "objects come into memory in any process",
        "places of members",
        "_activations/directory.py",
        "        if placement is not None:\n            placement.check(key)\n",
        "",
    ),
    Mutant(
        "given_with_objects",
        "a shard is given away while its objects are in memory",
        "chaos of members",
        "_cluster/handover.py",
        "if not self._map.residents(shard):",
        "if True:",
    ),
    Mutant(
        "views_without_lease",
        "a view is adopted after the end of its lease",
        "leases of members",
        "_cluster/member_cluster.py",
        "            or lease is None\n            or not lease.is_valid()\n",
        "            or lease is None\n",
    ),
    Mutant(
        "claims_kept",
        "alarms that a dead member had claimed wait for the end of its claims",
        "alarms of members",
        "_cluster/member_cluster.py",
        "await self._release_claims(shards)",
        "pass",
    ),
    Mutant(
        "theft",
        "a shard is acquired that has got an owner since it was read",
        "rows",
        "storage/postgres/_shards.py",
        "AND s.term = k.term\n        AND s.owner IS NULL AND passed = 1",
        "AND passed = 1",
    ),
    Mutant(
        "acquired_without_term",
        "a shard is acquired that was another member's since it was read",
        "rows",
        "storage/postgres/_shards.py",
        " AND s.term = k.term\n        AND s.owner IS NULL",
        "\n        AND s.owner IS NULL",
    ),
    Mutant(
        "moving_admitted",
        "objects of a shard that moves come into memory",
        "chaos of members",
        "_cluster/shard_map.py",
        "return self.moving.get(shard) is _Stage.CLOSED and running_turn() is not None",
        "return self.moving.get(shard) is not None",
    ),
    Mutant(
        "calls_of_zombies",
        "a turn without its lease calls objects of other members",
        "leases of members",
        "_cluster/router.py",
        "if self._tenure is not None:",
        "if False:",
    ),
    Mutant(
        "views_missed",
        "a view that comes before its lease has begun is all that comes",
        "leases of members",
        "_cluster/member_cluster.py",
        "        self._membership.look()  # views that came before were ignored\n",
        "",
    ),
    Mutant(
        "kept_after_loss",
        "objects stay in memory when the lease is over",
        "leases of members",
        "_runtime/leasing.py",
        "            activation.depose(partial(_owner_lost, activation.key, problem))\n",
        "            pass\n",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m cluster.mutants", MUTANTS, CHECKS))

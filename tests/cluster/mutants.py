"""The library with one guarantee of a cluster broken, to see that the tests here notice.

    PYTHONPATH=tests python -m cluster.mutants           all mutants
    PYTHONPATH=tests python -m cluster.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import TESTS, Mutant, main

_TESTS = (*TESTS, "-q", "-x", "-p", "no:xdist", "--timeout", "60", "--timeout-method", "thread")
_FILE = (*_TESTS, "cluster/test_file.py", "-k")
_PROCESSES = (*_TESTS, "cluster/test_processes.py", "-k")
CHECKS: dict[str, tuple[str, ...]] = {
    "succession": (*_FILE, "trio and (take or alarms or under_way or not_known or order)"),
    "closing": (*_FILE, "trio and (closing or close or answered)"),
    "files": (*_FILE, "trio and (removed or note or released or serves_nothing)"),
    "deaths": (*_PROCESSES, "only_a_def or milliseconds"),
    "forks": (*_PROCESSES, "forked or something_keeps"),
    "leaving": (*_PROCESSES, "terminated or what_was_answered or administration"),
    "end of a link": (*_TESTS, "cluster/test_link_end.py"),
    "chaos": ("cluster.chaos", "--minutes", "1", "--seed", "1"),
}

MUTANTS = [
    Mutant(
        "unknown_repeated",
        "a call of unknown outcome is made once more",
        "deaths",
        "_cluster/router.py",
        "if value == CUT_OFF and not repeatable:",
        "if False:",
    ),
    Mutant(
        "unknown_repeated_in_chaos",
        "the same",
        "chaos",
        "_cluster/router.py",
        "if value == CUT_OFF and not repeatable:",
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
        "_cluster/service.py",
        "never_ran = submission is None or not submission.has_begun",
        "never_ran = True",
    ),
    Mutant(
        "queued_is_lost",
        "a call that never ran is answered as one that may have",
        "succession",
        "_cluster/service.py",
        "never_ran = submission is None or not submission.has_begun",
        "never_ran = False",
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
        "        if self._services.closing:\n            incoming.fail(_MOVED)\n"
        "            return\n        kind,",
        "        kind,",
    ),
    Mutant(
        "note_first",
        "the note is written before the process listens",
        "files",
        "_cluster/file_cluster.py",
        "        listening = await self._listen()\n        try:\n            await self._write",
        "        await self._write_note(self._address, secret)\n"
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
        "timeout = max(until - self._loop.now(), 0.0)",
        "pass",
    ),
    Mutant(
        "note_not_restored",
        "a note that was removed stays away",
        "files",
        "_cluster/file_cluster.py",
        "if not is_noted and not self._is_leaving:",
        "if False:",
    ),
    Mutant(
        "socket_not_restored",
        "a socket that was removed stays away",
        "files",
        "_cluster/file_cluster.py",
        "                if not listening.is_at_path:\n",
        "                if False:\n",
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
        "_cluster/file_cluster.py",
        'replace = self._settings.listen is None and sys.platform == "linux"',
        "replace = False",
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
        "            self._places.moved(object_id, peer)\n            if self._closed is not None:\n"
        "                raise self._closed()\n",
        "            self._places.moved(object_id, peer)\n",
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
        "chaos",
        "_activations/resident.py",
        "if gate is None or (error is not None and not isinstance(error, Exception)):",
        "if gate is None or error is not None:",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m cluster.mutants", MUTANTS, CHECKS))

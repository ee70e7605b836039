"""The library with one guarantee of event streams broken, to see that the tests here notice.

    PYTHONPATH=tests python -m web.mutants           all mutants
    PYTHONPATH=tests python -m web.mutants NAME …    some of them

See `exactness.mutants`, which makes them and runs the tests.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_SSE = (*BOUNDED_TESTS, "web/test_sse.py", "-k")
CHECKS: dict[str, tuple[str, ...]] = {
    "states": (*_SSE, "trio and (durable or equal or slow or deletion)"),
    "reconnecting": (*_SSE, "trio and (reconnects or same_revision or taken_for or away)"),
    "views": (*_SSE, "trio and (view or decoded or unavailable or kept_of)"),
    "authorization": (*_SSE, "trio and authori"),
    "the end": (*_SSE, "trio and (leaves or cancelled or ends or age or cut_the_end)"),
    "signals": (*BOUNDED_TESTS, "web/test_exit_signals.py"),
    "statuses": (*BOUNDED_TESTS, "web/test_statuses.py"),
}

MUTANTS = [
    Mutant(
        "id_without_digest",
        "the id of an event is the revision alone",
        "reconnecting",
        "web/_renderings.py",
        'f"{snapshot.revision}-{digest.hexdigest()}"',
        'f"{snapshot.revision}-"',
    ),
    Mutant(
        "digest_without_object",
        "the digest is of the text alone",
        "reconnecting",
        "web/_renderings.py",
        "    digest.update(str(snapshot.key).encode())\n",
        "",
    ),
    Mutant(
        "authorized_once",
        "a client is authorized at first and never again",
        "authorization",
        "web/_event_stream.py",
        "                    if not await self._is_authorized():\n",
        "                    if False:\n",
    ),
    Mutant(
        "authorized_when_idle",
        "each event puts the next authorization off",
        "authorization",
        "web/_event_stream.py",
        "                    chunk = self._event(snapshot) or chunk\n",
        "                    chunk = self._event(snapshot) or chunk\n"
        "                    due = anyio.current_time() + self._keep_alive\n",
    ),
    Mutant(
        "anything_true_authorizes",
        "whatever is true authorizes",
        "authorization",
        "web/_event_stream.py",
        "        if not isinstance(answer, bool):\n",
        "        if False:\n",
    ),
    Mutant(
        "view_for_each_client",
        "the view runs for each client",
        "views",
        "web/_renderings.py",
        "    if known is not None:\n",
        "    if False:\n",
    ),
    Mutant(
        "views_shared_by_snapshot",
        "clients with different views share one text",
        "views",
        "web/_renderings.py",
        "    known = _renderings.get((view, snapshot))\n",
        "    known = next((v for k, v in _renderings.items() if k[1] == snapshot), None)\n",
    ),
    Mutant(
        "failure_keeps_the_id",
        "a state that isn't available keeps the id of the one before",
        "views",
        "web/_showing.py",
        "self._shown = token_of_failure(revision), _Kind.FAILURE, failure\n",
        "self._shown = self.token, _Kind.FAILURE, failure\n",
    ),
    Mutant(
        "gone_not_told",
        "a deletion is a state like others",
        "states",
        "web/_showing.py",
        "            kind = _Kind.GONE\n",
        "            pass\n",
    ),
    Mutant(
        "equal_view_sent",
        "a change that the view doesn't show is sent",
        "states",
        "web/_showing.py",
        "            has_it = (kind, new.data) == (self._kind, self._data)\n",
        "            has_it = False\n",
    ),
    Mutant(
        "disconnect_unnoticed",
        "a client that leaves isn't noticed",
        "the end",
        "web/_event_stream.py",
        "            tasks.start_soon(_at_disconnect, receive, tasks.cancel_scope.cancel)\n",
        "",
    ),
    Mutant(
        "watch_kept",
        "a stream that has ended keeps its watch",
        "the end",
        "web/_event_stream.py",
        "            await self._watch.__aexit__(None, None, None)\n",
        "            pass\n",
    ),
    Mutant(
        "end_cut_off",
        "a disconnection while the end of the response is sent cancels that",
        "the end",
        "web/_event_stream.py",
        "                last = await self._respond(send)\n",
        "                await send(await self._respond(send))\n",
    ),
    Mutant(
        "no_age",
        "a stream has no end",
        "the end",
        "web/_event_stream.py",
        "            while anyio.current_time() < ends:\n",
        "            while True:\n",
    ),
    Mutant(
        "signal_swallowed",
        "a signal does nothing but end the watches",
        "signals",
        "web/_exit_signals.py",
        "            before(number, frame)\n",
        "            pass\n",
    ),
    Mutant(
        "handler_left_behind",
        "a handler stays when the lifespan has ended",
        "signals",
        "web/_exit_signals.py",
        "            if signal.getsignal(each) is end_watches:\n",
        "            if False:\n",
    ),
    Mutant(
        "queued_calls_may_have_run",
        "a call that never began counts like one that did",
        "statuses",
        "web/_statuses.py",
        "    if isinstance(error, CallTimeout) and not error.may_have_run:\n",
        "    if False:\n",
    ),
]


if __name__ == "__main__":
    sys.exit(main("python -m web.mutants", MUTANTS, CHECKS))

"""Messages and once-keys with one rule of the runtime broken, to see that its tests notice.

    PYTHONPATH=tests python -m outbox.mutants           all mutants
    PYTHONPATH=tests python -m outbox.mutants NAME …    some of them

Each mutant has the test that must find it. See `exactness.mutants`, which makes them, and
`storage.mutants` for the rules of storages.
"""

from __future__ import annotations

import sys

from exactness.mutants import TESTS, Mutant, main

_TESTS = (*TESTS, "-q", "-x", "-p", "no:xdist", "--timeout", "60", "--timeout-method", "thread")
_BANK, _MESSAGES, _ONCE = "outbox/test_bank.py", "outbox/test_messages.py", "outbox/test_once.py"
_SLEEPERS, _SUSPECTS = "outbox/test_sleeping_lanes.py", "outbox/test_suspects.py"
_GROUP, _MEMBERS = "persistence/test_group_commit.py", "cluster/test_member_messages.py"

CHECKS = {
    "bank": (*_TESTS, _BANK),
    "order": (*_TESTS, _MESSAGES, "-k", "before_a_restart or handled_in_order"),
    "suspects": (*_TESTS, _SUSPECTS),
    "sleepers": (*_TESTS, _SLEEPERS, "-k", "not postgres and not sqlite"),
    "lane sleeps": (*_TESTS, _MESSAGES, "-k", "holds_its_lane"),
    "refused commit": (*_TESTS, _MESSAGES, _ONCE, "-k", "refuses_a_commit or commit_a_part"),
    "deleted": (*_TESTS, _MESSAGES, _SLEEPERS, "-k", "deleted_object and not postgres"),
    "raises": (*_TESTS, _MESSAGES, "-k", "raises_sends_nothing"),
    "expected": (*_TESTS, _MESSAGES, "-k", "expected_error"),
    "circle": (*_TESTS, _MESSAGES, "-k", "circle"),
    "moved": (*_TESTS, _MEMBERS, "-k", "a_lane_moves or deposed_owner or comes_back"),
    "tickets": (*_TESTS, _GROUP, "-k", "deletion"),
    "one effect": (*_TESTS, _ONCE, "-k", "one_effect or another_process_finds"),
    "join": (*_TESTS, _ONCE, "-k", "join_and_each or one_read"),
    "leave": (*_TESTS, _ONCE, "-k", "leaves or another_caller or own_timeout"),
    "arguments": (*_TESTS, _ONCE, "-k", "as_they_are_given or belongs_to_one"),
    "release": (*_TESTS, _ONCE, "-k", "another_release or read_any_more"),
    "repeats": (*_TESTS, _ONCE, "-k", "unknown_outcome or made_again or behind_the_look"),
    "patience": (*_TESTS, _ONCE, "-k", "as_long_as"),
    "cycle": (*_TESTS, _ONCE, "-k", "closes_a_cycle"),
    "derived": (*_TESTS, _ONCE, "-k", "derives_keys"),
    "warned": (*_TESTS, _ONCE, "-k", "warned_about"),
    "sent once": (*_TESTS, _ONCE, "-k", "is_the_same or gets_its_result or dead_letter"),
    "expiry": (*_TESTS, _ONCE, "-k", "expired"),
}

_INBOXES, _DELIVERER = "_outbox/inboxes.py", "_outbox/deliverer.py"
_RUNS, _CALLS, _TICKET = (
    "_activations/once_runs.py",
    "_once/once_calls.py",
    "_persistence/ticket.py",
)

MUTANTS = [
    # --- messages ---------------------------------------------------------------------------------
    Mutant(
        "handed_into_a_cut_off_lane",
        "a message that was just committed goes to memory behind a lane that isn't whole",
        "bank",
        _INBOXES,
        "if lane.is_reading or not lane.is_whole or len(lane.queue)",
        "if lane.is_reading or len(lane.queue)",
    ),
    Mutant(
        "two_of_a_lane",
        "the next message of a lane is handed over before the turn of the one before has ended",
        "bank",
        _INBOXES,
        "        most = 1 if self.name else DEPTH",
        "        most = DEPTH",
    ),
    Mutant(
        "backoff_of_the_message",
        "a message that fails sleeps, and its lane goes on",
        "lane sleeps",
        _DELIVERER,
        "            self._lanes.fall_asleep(lane)\n",
        "            pass\n",
    ),
    Mutant(
        "overtakes_a_sleeper",
        "new mail goes to memory though its lane sleeps in the table",
        "sleepers",
        _INBOXES,
        "        if self.sleeping.knows(to, name):\n",
        "        if False:\n",
    ),
    Mutant(
        "overtakes_a_forgotten_sleeper",
        "new mail goes to memory though the name of its lane may be forgotten",
        "sleepers",
        _INBOXES,
        "            if name and not self.sleeping.are_all:\n",
        "            if False:\n",
    ),
    Mutant(
        "fell_asleep_during_the_read",
        "a lane that has fallen asleep is taken in as it was read before that",
        "bank",
        "_outbox/feed.py",
        " and not self._lanes.inboxes.sleeping.knows(inbox.key, name):",
        ":",
    ),
    Mutant(
        "sleepers_outlive_the_object",
        "a lane sleeps on though the object was deleted with what waited",
        "sleepers",
        "_outbox/lanes.py",
        '        """What has waited for an object is gone."""\n'
        "        self.inboxes.sleeping.forget(to)\n",
        "",
    ),
    Mutant(
        "overtakes_in_a_tenant_that_was_not_read",
        "new mail of a tenant that can't be read goes to memory",
        "sleepers",
        "_outbox/lanes.py",
        " and to.tenant not in self.unscanned",
        "",
    ),
    Mutant(
        "overtaken",
        "what stands behind a failed commit in the mailbox isn't withdrawn",
        "bank",
        _DELIVERER,
        "elif not flight.has_run and flight.withdraw is not None and flight.withdraw():",
        "elif False:",
    ),
    Mutant(
        "sends_survive_the_turn",
        "a turn that has raised leaves its effects to the next one",
        "raises",
        "_activations/state.py",
        "effects, self.effects = self.effects, None\n        self.drop_instance()\n",
        "effects = self.effects\n        self.drop_instance()\n",
    ),
    Mutant(
        "expected_is_retried",
        "an expected error is tried again",
        "expected",
        _DELIVERER,
        "if isinstance(error, handler.expected) or handler",
        "if handler",
    ),
    Mutant(
        "overtakes_a_restart",
        "new mail goes to memory before the table was looked through",
        "order",
        "_outbox/lanes.py",
        "if self.inboxes.get(to) is None and not self._knows(to):",
        "if False:",
    ),
    Mutant(
        "deliveries_outlive_the_object",
        "the messages to a deleted object stay in memory",
        "deleted",
        "_outbox/outbox.py",
        "        self._lanes.deleted(key)\n",
        "        pass\n",
    ),
    Mutant(
        "delivered_elsewhere",
        "an inbox stays in memory when its object has moved",
        "moved",
        _DELIVERER,
        "        if not self._lanes.serves(lane.inbox.key):",
        "        if False:",
    ),
    Mutant(
        "circles_go_on",
        "the number of messages in succession has no bound",
        "circle",
        _DELIVERER,
        "        if message.hops >= MAX_HOPS:",
        "        if False:",
    ),
    Mutant(
        "commits_in_the_middle",
        "the turn of a message, or with a once-key, may commit a part",
        "refused commit",
        "_activations/state.py",
        "        if effects is not None and effects.is_indivisible:",
        "        if False:",
    ),
    Mutant(
        "ticket_left_behind",
        "of several tickets of an object the writer takes the last one",
        "tickets",
        _TICKET,
        "while (before := ticket.preceding) is not None and not before.taken",
        "while (before := None) is not None and not before.taken",
    ),
    Mutant(
        "deletion_joins_sends",
        "a deletion is added to what was sent to the object",
        "tickets",
        _TICKET,
        "        return messages is None\n",
        "        return True\n",
    ),
    Mutant(
        "state_joins_deletion",
        "a state takes the place of a deletion",
        "tickets",
        _TICKET,
        "            return state is None or not self.delete",
        "            return True",
    ),
    # --- once-keys --------------------------------------------------------------------------------
    Mutant(
        "nothing_recorded",
        "the turn of a call with a once-key doesn't record its reply",
        "one effect",
        "_messages/once.py",
        "        self.changes.record(",
        "        _ = (",
    ),
    Mutant(
        "registered_too_late",
        "a run is registered after its key was looked up",
        "join",
        _RUNS,
        "        run = self._runs[request.key] = OnceRun(",
        "        run = OnceRun(",
    ),
    Mutant(
        "left_by_the_first",
        "a call is withdrawn with the first caller that leaves",
        "leave",
        _RUNS,
        "        if run.joined or run.is_over:",
        "        if run.is_over:",
    ),
    Mutant(
        "never_left",
        "a call whose callers have gone stays in the mailbox",
        "leave",
        _RUNS,
        "            run.activation.withdraw(run.envelope)\n",
        "",
    ),
    Mutant(
        "digest_with_defaults",
        "defaults are part of the digest of arguments",
        "arguments",
        "_outbox/message_codec.py",
        "        self._check(len(args), kwargs.keys())\n",
        "        bound = self._parameters.signature.bind(*args, **kwargs)\n"
        "        bound.apply_defaults()\n"
        "        args, kwargs = (), bound.arguments\n",
    ),
    Mutant(
        "digest_by_order",
        "the digest depends on the order of names",
        "arguments",
        "_outbox/message_codec.py",
        ", option=orjson.OPT_SORT_KEYS)",
        ")",
    ),
    Mutant(
        "any_arguments",
        "a key may be used with other arguments",
        "arguments",
        "_activations/once_records.py",
        "    elif other.digest != request.digest:",
        "    elif False:",
    ),
    Mutant(
        "releases_compared",
        "arguments of another release are compared",
        "release",
        "_activations/once_records.py",
        "    if stored.handler == request.handler and stored.signature != request.signature:",
        "    if False:",
    ),
    Mutant(
        "errors_not_repeated",
        "a call with a once-key isn't repeated",
        "repeats",
        _CALLS,
        "_REPEATED = (OwnerLost, PersistenceError, NotHere)",
        "_REPEATED = (NotHere,)",
    ),
    Mutant(
        "repeated_for_ever",
        "a call with a once-key is repeated beyond its timeout",
        "patience",
        _CALLS,
        "                if left <= 0 or self",
        "                if self",
    ),
    Mutant(
        "cycle_not_seen",
        "a join isn't a wait in the wait graph",
        "cycle",
        _RUNS,
        "            graph.check(joined.caller, node, name)\n",
        "",
    ),
    Mutant(
        "derived_of_the_key_alone",
        "derived keys of two objects are the same",
        "derived",
        "_messages/once.py",
        "    parts = [own.type_name, own.object_id, origin, name]",
        "    parts = [origin, name]",
    ),
    Mutant(
        "not_warned",
        "a call without a key from a turn with one isn't warned about",
        "warned",
        "_activations/turns.py",
        "    turn.is_once = envelope.once is not None\n",
        "",
    ),
    Mutant(
        "promise_not_looked_up",
        "a message with a once-key is sent without a look",
        "sent once",
        _CALLS,
        "        if stored is None:\n            await",
        "        if True:\n            await",
    ),
    Mutant(
        "waits_for_no_message",
        "a call with the key of a message isn't woken by its result",
        "sent once",
        _RUNS,
        "            if run is not None and not run.is_submitted and stored.reply is not None:",
        "            if False:",
    ),
    Mutant(
        "never_cleaned",
        "expired once-keys stay",
        "expiry",
        "_once/cleaning.py",
        "                await self.clean()\n",
        "                pass\n",
    ),
    Mutant(
        "crash_not_counted",
        "the delivery of a suspect isn't marked",
        "suspects",
        "_outbox/suspects.py",
        "                lambda writer: writer.mark_message(message.key)",
        "                lambda writer: True",
    ),
    Mutant(
        "innocents_counted",
        "the next suspect begins while one is delivered",
        "suspects",
        "_outbox/suspects.py",
        "            await self._end_probation(self._begin(lane, message))",
        "            self._begin(lane, message)",
    ),
    Mutant(
        "crashes_forgotten",
        "a message that has crashed isn't a suspect once it was read",
        "suspects",
        "_outbox/suspicion.py",
        "        return message.crashes > 0 or message",
        "        return message",
    ),
    Mutant(
        "closing_counted",
        "the mark of a delivery that is cut off stays",
        "suspects",
        "_outbox/suspects.py",
        "            if not flight.is_decided:",
        "            if False:",
    ),
    Mutant(
        "whole_lane_suspected",
        "all messages of a lane that waited are suspects",
        "suspects",
        "_outbox/suspicion.py",
        "            possible = lane[:1] if lane[0].key.lane else lane",
        "            possible = lane",
    ),
    Mutant(
        "suspect_holds_others",
        "a suspect without a lane holds up the others without one",
        "suspects",
        "_outbox/inboxes.py",
        "        return (self.queue[0],) if self.name and self.queue else self.queue",
        "        return (self.queue[0],) if self.queue else self.queue",
    ),
]

if __name__ == "__main__":
    sys.exit(main("python -m outbox.mutants", MUTANTS, CHECKS))

"""A storage with one rule of messages broken, to see that the conformance suite notices.

    PYTHONPATH=tests python -m storage.mutants           all mutants
    PYTHONPATH=tests python -m storage.mutants NAME …    some of them

Each mutant has the test that must find it. See `exactness.mutants`, which makes them.
"""

from __future__ import annotations

import sys

from exactness.mutants import BOUNDED_TESTS, Mutant, main

_SUITE = "storage/test_conformance.py::Test"
_MEMORY = "_memory_messages.py"
_VIEW = "sqlite/_changes_view.py"


def _checks() -> dict[str, tuple[str, ...]]:
    """By the name of a test: the command that runs it, on the storage that the mutant breaks."""
    checks: dict[str, tuple[str, ...]] = {}
    for each in MUTANTS:
        test, _, storage = each.check.partition(" on ")
        if storage == "PostgreSQL":
            checks[each.check] = (*BOUNDED_TESTS, f"{_SUITE}PostgresStorage", "-k", test)
        elif storage.lower() == "sqlite":
            checks[each.check] = (
                *BOUNDED_TESTS,
                f"{_SUITE}SQLiteStorage",
                "-k",
                f"full and {test}",
            )
        else:
            checks[each.check] = (*BOUNDED_TESTS, f"{_SUITE}MemoryStorage", "-k", test)
    checks.update((name, (*BOUNDED_TESTS, f"storage/{path}", "-k", k)) for name, path, k in _OWN)
    return checks


def _mutant(name: str, what: str, test: str, module: str, old: str, new: str) -> Mutant:
    return Mutant(name, what, test, f"storage/{module}", old, new)


_SQLITE_TESTS = "sqlite/test_messages.py"
_POSTGRES_TESTS = "postgres/test_messages.py"
_COMMITS = "postgres/_message_commits.py"
_OWN = (
    ("one_statement", _SQLITE_TESTS, "a_batch_with_messages_is_one_statement"),
    ("plans", _SQLITE_TESTS, "looks_at_all_messages and (retry or drop or due) or work_does_not"),
    ("lost", _POSTGRES_TESTS, "lost_between_the_look_and_the_removal"),
    ("removed", _POSTGRES_TESTS, "removed_node_changes_no_message"),
    ("fed", _POSTGRES_TESTS, "what_is_of_its_shards_alone"),
    ("marks", _POSTGRES_TESTS, "marks_of"),
    ("locked", _POSTGRES_TESTS, "another_session_has_locked"),
    ("deadlock", _POSTGRES_TESTS, "before_it_removes_any"),
    ("down", "postgres/test_migrations.py", "deletes_messages or deletes_no_messages"),
    ("dead letters", "postgres/test_message_plans.py", "letters_of_other_lanes"),
    ("pinned", "postgres/test_message_plans.py", "(statement or round_trip) and not work"),
)

MUTANTS = [
    # --- commits ----------------------------------------------------------------------------------
    _mutant(
        "send_without_revision",
        "a commit that only sends doesn't look at the revision",
        "test_a_commit_that_only_sends_is_conditional on SQLite",
        "sqlite/_changes.py",
        "    elif commit.revision is not None:\n        yield CHECK",
        "    elif False:\n        yield CHECK",
    ),
    _mutant(
        "acknowledgement_without_revision",
        "an acknowledgement alone doesn't look at the revision",
        "test_an_acknowledgement_alone_is_conditional on SQLite",
        _VIEW,
        'SELECT RAISE(ABORT, \'stale\') WHERE NEW.number <> {_stored_revision(names)};"""',
        'SELECT 1;"""',
    ),
    _mutant(
        "acknowledgement_without_token",
        "a message is acknowledged by its number, whatever its token",
        "test_another_message_than_the_one_that_waits on SQLite",
        _VIEW,
        "seq = NEW.number AND token = NEW.token AND",
        "seq = NEW.number AND",
    ),
    _mutant(
        "acknowledgement_without_count",
        "the acknowledgement of a message that is gone applies",
        "test_a_message_can_be_used_up_once on SQLite",
        _VIEW,
        "WHERE changes() <> 1;",
        "WHERE 0;",
    ),
    _mutant(
        "acknowledged_stays",
        "an acknowledged message waits on",
        "test_an_acknowledged_message_is_gone on memory",
        _MEMORY,
        "    def _acknowledge(self, key: MessageKey) -> None:\n        self._remove(key.seq)",
        "    def _acknowledge(self, key: MessageKey) -> None:\n        pass",
    ),
    _mutant(
        "stale_in_memory",
        "what must wait is not looked for",
        "test_another_message_than_the_one_that_waits on memory",
        _MEMORY,
        "return any(self.find(key) is None for key in changes.waiting) or",
        "return",
    ),
    _mutant(
        "key_by_number",
        "a message is found by its number alone",
        "test_what_does_not_wait_is_not_deferred on memory",
        _MEMORY,
        "return message if message is not None and message.key == key else None",
        "return message",
    ),
    _mutant(
        "batch_not_in_turn",
        "the commits of a batch don't see what earlier ones did",
        "test_commits_of_a_batch_apply_one_after_the_other on SQLite",
        "sqlite/_writer.py",
        "if any(commit.messages is not None for _, commit in part):",
        "if False:",
    ),
    _mutant(
        "writes_nothing",
        "writes_anything is blind to messages",
        "test_messages_of_one_tenant_are_seen_there_alone on SQLite",
        "_records.py",
        "if self.messages is not None and self.messages.writes_anything:",
        "if False:",
    ),
    _mutant(
        "expects_nothing",
        "expects_anything is blind to messages",
        "test_a_tenant_that_is_not_there_has_no_messages on sqlite",
        "_records.py",
        "if self.messages is not None and self.messages.expects_anything:",
        "if False:",
    ),
    _mutant(
        "number_again",
        "the number of a message that is gone is given once more",
        "test_a_number_is_not_given_again_while_the_writer_is_open on SQLite",
        "sqlite/_messages.py",
        "last = self._numbers.get(self._tenant)",
        "last = None",
    ),
    _mutant(
        "numbers_of_dead",
        "a new message gets the number of a dead letter",
        "test_numbers_go_on_after_opening_again on SQLite",
        "sqlite/_messages.py",
        "ifnull((SELECT max(seq) FROM {dead}), 0)",
        "0",
    ),
    # --- dead letters and deletion ----------------------------------------------------------------
    _mutant(
        "dead_and_waiting",
        "a message is buried and waits on",
        "test_a_buried_message_waits_no_more on SQLite",
        _VIEW,
        '{_bury_where(names, "NEW.count", "NEW.name", _THIS)}\n            DELETE FROM',
        '{_bury_where(names, "NEW.count", "NEW.name", _THIS)}\n            SELECT 1 FROM',
    ),
    _mutant(
        "deletion_leaves_messages",
        "what waits for a deleted object waits on",
        "test_what_waits_for_a_deleted_object_becomes_dead on SQLite",
        "sqlite/_changes.py",
        "return commit.messages is not None or commit.delete",
        "return commit.messages is not None",
    ),
    _mutant(
        "deletion_leaves_in_memory",
        "what waits for a deleted object waits on",
        "test_what_waits_for_a_deleted_object_becomes_dead on memory",
        "memory.py",
        "if commit.messages is not None or commit.delete:",
        "if commit.messages is not None:",
    ),
    _mutant(
        "sent_before_deletion",
        "what a turn sends to itself dies with it",
        "test_a_turn_may_send_and_delete on SQLite",
        "sqlite/_changes.py",
        "    for message in changes.acknowledged:\n",
        "    for new in changes.sent if commit.delete else ():\n        yield _of_new(new)\n"
        "    for message in changes.acknowledged:\n",
    ),
    _mutant(
        "overtaken_by_none",
        "a dead letter doesn't learn that later ones have run",
        "test_a_retry_says_whether_later_messages_have_run on SQLite",
        _VIEW,
        "SET is_overtaken = 1",
        "SET is_overtaken = 0",
    ),
    _mutant(
        "overtaken_by_earlier",
        "a dead letter counts as overtaken by what came before it",
        "test_a_retry_says_whether_later_messages_have_run on memory",
        _MEMORY,
        "(key.to, key.lane) and seq < key.seq:",
        "(key.to, key.lane):",
    ),
    _mutant(
        "retry_at_its_place",
        "a retried letter keeps its number",
        "test_a_retried_letter_is_at_the_end_of_its_lane on memory",
        _MEMORY,
        "key = dead.message.key._replace(seq=self._number())\n                self._put(",
        "key = dead.message.key\n                self._put(",
    ),
    _mutant(
        "drop_what_waits",
        "waiting messages are dropped as well",
        "test_only_dead_letters_are_dropped on memory",
        _MEMORY,
        "            del self._dead[key.seq]\n        return [key.token for key in found]",
        "            del self._dead[key.seq]\n        self._waiting.clear()\n"
        "        return [key.token for key in found]",
    ),
    # --- sender keys ------------------------------------------------------------------------------
    _mutant(
        "cancel_of_another",
        "a cancellation takes what another sender has under the key",
        "test_a_cancelled_message_is_gone_and_the_answer_is_true on SQLite",
        "sqlite/_messages.py",
        "WHERE from_type = k.value ->> 0 AND from_id = k.value ->> 1 AND sender_key",
        "WHERE from_type = k.value ->> 0 AND sender_key",
    ),
    _mutant(
        "cancel_untrue",
        "a cancellation says yes to all",
        "test_what_was_handled_is_not_taken_back on SQLite",
        "sqlite/_changes.py",
        "changes.taken_back = set(found)",
        "changes.taken_back = changes.sender_keys",
    ),
    _mutant(
        "removed_twice",
        "what a commit uses up itself is looked for under its sender keys as well",
        "test_a_commit_uses_a_message_up_and_cancels_or_renews_its_key on SQLite",
        "sqlite/_changes.py",
        "                if message not in changes.waiting:",
        "                if True:",
    ),
    _mutant(
        "key_without_replacement",
        "a message doesn't replace what waits under its key",
        "test_a_message_replaces_what_waits_under_its_key on memory",
        "_messages.py",
        "return {*self.cancelled, *(new.sender_key for new in self.sent if new.sender_key)}",
        "return set(self.cancelled)",
    ),
    # --- reading ----------------------------------------------------------------------------------
    _mutant(
        "lanes_by_number",
        "lanes come in the order of their first messages",
        "test_mail_is_the_head_of_each_lane on memory",
        _MEMORY,
        "names = sorted(lane for lane in",
        "names = list(lane for lane in",
    ),
    _mutant(
        "order_by_clock",
        "the messages of a lane are in the order of their times",
        "test_messages_are_in_the_order_of_their_commits on SQLite",
        "sqlite/_messages.py",
        "AND lane = ? AND place > ? ORDER BY place LIMIT ?",
        "AND lane = ? AND place > ? ORDER BY sent_at LIMIT ?",
    ),
    _mutant(
        "sleeping_are_mail",
        "sleeping messages without a lane are read as mail",
        "test_sleeping_messages_without_a_lane_are_no_mail on memory",
        _MEMORY,
        "if not lane and message.wake_at is not None:\n            return",
        "if False:\n            return",
    ),
    _mutant(
        "sleep_of_the_message",
        "a deferred message leaves its lane, and the next one is its head",
        "test_a_deferred_message_holds_back_its_lane_alone on memory",
        _MEMORY,
        "        if not lane and message.wake_at is not None:\n            return self._asleep",
        "        if message.wake_at is not None:\n            return self._asleep",
    ),
    # --- crashes ----------------------------------------------------------------------------------
    _mutant(
        "crash_not_counted",
        "opening doesn't count the crashes of what was marked",
        "test_opening_counts_the_marked_alone on SQLite",
        "sqlite/_storage.py",
        "tables.messages.count_crashes()",
        "pass",
    ),
    _mutant(
        "innocents_counted",
        "opening counts a crash for each message that waits",
        "test_opening_counts_the_marked_alone on sqlite",
        "sqlite/_messages.py",
        "SET crashes = crashes + 1, begun = 0 WHERE begun <> 0",
        "SET crashes = crashes + 1, begun = 0 WHERE begun <> 0 OR 1",
    ),
    _mutant(
        "mark_outlives_deferral",
        "a deferred message counts as begun",
        "test_a_deferral_ends_the_mark on SQLite",
        "sqlite/_messages.py",
        "crashes = k.value ->> 8, begun = 0",
        "crashes = k.value ->> 8",
    ),
    # --- once-keys --------------------------------------------------------------------------------
    _mutant(
        "expired_key_valid",
        "an expired key is found",
        "test_an_expired_key_is_absent on SQLite",
        "sqlite/_once.py",
        "WHERE o.expires_at > ?",
        "WHERE o.expires_at > ? - 1",
    ),
    _mutant(
        "expired_key_taken",
        "an expired key can't be recorded again",
        "test_an_expired_key_is_absent on sqlite",
        _VIEW,
        "WHEN expires_at <= NEW.at OR (reply",
        "WHEN (reply",
    ),
    _mutant(
        "key_recorded_twice",
        "a key that is there is overwritten",
        "test_a_key_that_is_there_makes_a_commit_stale on SQLite",
        _VIEW,
        "WHEN expires_at <= NEW.at OR (reply IS NULL AND token = excluded.token)",
        "WHEN 1",
    ),
    _mutant(
        "key_gone_with_object",
        "the keys of a deleted object go with it",
        "test_a_key_survives_its_object on SQLite",
        _VIEW,
        '            DELETE FROM {names.messages} WHERE {of_object};"""',
        '            DELETE FROM {names.once} WHERE object_id = NEW.object_id;"""',
    ),
    _mutant(
        "promise_of_another",
        "the promise of a reply is kept by any message",
        "test_the_promise_of_a_reply_is_kept_by_its_message on memory",
        _MEMORY,
        "return there.is_pending and there.token == reply.token",
        "return there.is_pending",
    ),
    # --- moving -----------------------------------------------------------------------------------
    _mutant(
        "restored_twice",
        "tokens that are there are restored once more",
        "test_what_is_there_is_not_restored on memory",
        _MEMORY,
        "if (message.key.to.tenant, token) in there:",
        "if False:",
    ),
    _mutant(
        "renamed_without_lanes",
        "a renamed type leaves its lanes",
        "test_a_type_is_renamed_everywhere on SQLite",
        "sqlite/_messages.py",
        "UPDATE {table} SET lane = :new || '/' || from_id",
        "UPDATE {table} SET lane = lane",
    ),
    _mutant(
        "tenant_leaves_messages",
        "a dropped tenant leaves its messages",
        "test_messages_of_one_tenant_are_seen_there_alone on memory",
        "memory.py",
        "        self._messages.drop_tenant(tenant)\n",
        "",
    ),
    _mutant(
        "no_snapshot",
        "an export sees what is committed while it reads",
        "test_all_reads_of_a_snapshot_see_one_state on SQLite",
        "sqlite/_reader.py",
        "with transaction(self._connection, writes=False):\n            # SQLite takes",
        "if True:\n            # SQLite takes",
    ),
    # --- statements -------------------------------------------------------------------------------
    _mutant(
        "row_by_row",
        "each change of a batch is a statement",
        "one_statement",
        "sqlite/_changes.py",
        "if len(rows) <= MAX_ROWS:\n            self._insert(rows)",
        "if len(rows) <= 1:\n            self._insert(rows)",
    ),
    _mutant(
        "dead_by_scan",
        "dead letters are dropped by a scan of their table",
        "plans",
        "sqlite/_messages.py",
        "DELETE FROM {dead} INDEXED BY {dead_by_token} WHERE",
        "DELETE FROM {dead} NOT INDEXED WHERE",
    ),
    # --- PostgreSQL -------------------------------------------------------------------------------
    _mutant(
        "postgres_acknowledgement_without_token",
        "a message is acknowledged by its place, whatever its token",
        "lost",
        "postgres/_message_rows.py",
        "AND m.lane = k.ml AND m.seq = k.mq\n    AND m.token = k.mk",
        "AND m.lane = k.ml AND m.seq = k.mq\n    AND k.mk = k.mk",
    ),
    _mutant(
        "postgres_acknowledgement_without_count",
        "a message that another process has removed is acknowledged",
        "lost",
        _COMMITS,
        "WHERE d.seq = ANY (ARRAY(SELECT seq FROM late))\n) {REQUIRE_ALL}",
        "WHERE d.seq = ANY (ARRAY(SELECT seq FROM late))\n) SELECT 1",
    ),
    _mutant(
        "postgres_acknowledgement_without_look",
        "a second transaction finds the commits that have lost their messages",
        "pinned",
        _COMMITS,
        "WHERE m.token IS NULL\nHAVING count(*) > 0",
        "WHERE false\nHAVING count(*) > 0",
    ),
    _mutant(
        "postgres_acknowledgement_without_revision",
        "a stale commit acknowledges all the same",
        "test_an_acknowledgement_alone_is_conditional on PostgreSQL",
        _COMMITS,
        "AS k (t, i, {K}, kind, f, e)\n    WHERE {_K_IS_FRESH}",
        "AS k (t, i, {K}, kind, f, e)",
    ),
    _mutant(
        "postgres_send_without_revision",
        "a stale commit sends all the same",
        "test_a_commit_that_only_sends_is_conditional on PostgreSQL",
        _COMMITS,
        "WITH ORDINALITY AS k (t, i, {SENT}, n)\nWHERE {_K_IS_FRESH}",
        "WITH ORDINALITY AS k (t, i, {SENT}, n)",
    ),
    _mutant(
        "postgres_send_without_fence",
        "a batch of several statements doesn't lock the node",
        "removed",
        "postgres/_writer.py",
        "            self._nodes.lock(connection)\n            for tenant, tables, part in found:",
        "            for tenant, tables, part in found:",
    ),
    _mutant(
        "postgres_retry_without_fence",
        "a removed node retries dead letters",
        "removed",
        "postgres/_messages.py",
        """    FROM fence CROSS JOIN unnest(%s::bigint[]) WITH ORDINALITY AS k (token, n)
    JOIN {{dead_messages}} AS d ON d.token = k.token AND passed = 1
    ORDER BY d.seq FOR UPDATE OF d
), gone AS (
    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq
), back AS""",
        """    FROM unnest(%s::bigint[]) WITH ORDINALITY AS k (token, n)
    JOIN {{dead_messages}} AS d ON d.token = k.token
    ORDER BY d.seq FOR UPDATE OF d
), gone AS (
    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq
), back AS""",
    ),
    _mutant(
        "postgres_dead_without_removal",
        "a retried letter stays dead",
        "test_a_retried_letter_is_at_the_end_of_its_lane on PostgreSQL",
        "postgres/_messages.py",
        """    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq
), back AS""",
        """    DELETE FROM {{dead_messages}} AS d USING held AS h WHERE d.seq = h.seq AND false
), back AS""",
    ),
    _mutant(
        "postgres_one_part",
        "the commits of a batch apply at the same time",
        "test_what_is_sent_before_a_deletion_in_a_batch on PostgreSQL",
        "postgres/_message_groups.py",
        "if found[-1] and earlier.must_precede(commit):",
        "if False:",
    ),
    _mutant(
        "postgres_down_on_a_full_table",
        "an older schema deletes messages",
        "down",
        "postgres/_steps.py",
        "        RAISE EXCEPTION '% of the {what}",
        "        RAISE NOTICE '% of the {what}",
    ),
    _mutant(
        "postgres_down_of_tenants_first",
        "tenants are removed before the refusal",
        "down",
        "postgres/_migrations.py",
        "    return [lock, *REFUSE_IF_FILLED, *others]",
        "    return [lock, *others]",
    ),
    _mutant(
        "postgres_feed_of_all_shards",
        "a member gets the sleeping messages of others",
        "fed",
        "postgres/_messages.py",
        "query, of_shards = self._due_of_shards, (shards.bitmap,)",
        "pass",
    ),
    _mutant(
        "postgres_receivers_of_all_shards",
        "a member gets the receivers of others",
        "fed",
        "postgres/_reader.py",
        "range(MESSAGE_SHARDS) if fed is None else fed.numbers()",
        "range(MESSAGE_SHARDS) if fed is None or fed.numbers() else []",
    ),
    _mutant(
        "postgres_cleaning_of_all_shards",
        "a member removes the once-keys of others",
        "fed",
        "postgres/_once.py",
        "query, of_shards = self._clean_shards, shards.parameters",
        "pass",
    ),
    _mutant(
        "postgres_marks_of_all_shards",
        "the marks of shards that weren't acquired are counted",
        "marks",
        "postgres/_writer.py",
        "tables.messages.end_marks(connection, shards, are_crashes",
        "tables.messages.end_marks(connection, None, are_crashes",
    ),
    _mutant(
        "postgres_marks_stay",
        "a mark is counted at each acquisition",
        "marks",
        "postgres/_messages.py",
        "SET begun = false, crashes = m.crashes + %s::int",
        "SET crashes = m.crashes + %s::int",
    ),
    _mutant(
        "postgres_locked_messages",
        "locked messages aren't looked for",
        "locked",
        "postgres/_tables.py",
        "            numbers |= self._message_commits.locked(connection, batch)\n",
        "",
    ),
    _mutant(
        "postgres_locks_in_any_order",
        "each statement of a batch locks its own messages",
        "deadlock",
        "postgres/_tables.py",
        "        if group.locks > 1 and not are_locked:",
        "        if False:",
    ),
    _mutant(
        "postgres_dead_by_number",
        "dead letters are looked up by their numbers alone",
        "dead letters",
        _COMMITS,
        "AND (d.to_id, d.lane, d.seq) < (h.to_id, h.lane, h.seq)",
        "AND d.seq < h.seq",
    ),
    _mutant(
        "postgres_message_by_message",
        "each commit of a batch has its own statements",
        "pinned",
        "postgres/_message_groups.py",
        "if found[-1] and earlier.must_precede(commit):",
        "if found[-1]:",
    ),
]
CHECKS = _checks()

if __name__ == "__main__":
    sys.exit(main("python -m storage.mutants", MUTANTS, CHECKS))

"""The shard function, and what it is for: the horizon feed and claims of some shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trio_durable import ObjectKey
from trio_durable.storage import Commit, DueAlarm, Reader
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._arrays import text_array
from trio_durable.storage.postgres._connection import Connection
from trio_durable.storage.postgres._shard_function import IN_SHARDS, ShardSet, shard_of

from .members import Follower, followers, new_member
from .rows import NOW, SECOND, Admin, alarm_key, commit, key, setting

IDS = [f"object {n}" for n in range(40)] + ["größe", "🦊", "\U0010ffff", "a\\101", "%s"]
SOME = range(512)

# An id has neither NUL nor lone surrogates, and UTF-8 of at most 512 bytes.
ids = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=128
)


@pytest.mark.parametrize(
    ("object_id", "shard"), [("a", 274), ("object-1", 1018), ("größe", 615), ("🦊", 744)]
)
def test_the_function_does_not_change(object_id: str, shard: int) -> None:
    assert shard_of(object_id, 1024) == shard


def test_it_divides_ids_evenly() -> None:
    counted = Counter(shard_of(f"object-{n}", 16) for n in range(16_000))
    assert all(900 < counted[shard] < 1100 for shard in range(16))


@pytest.fixture
def connection(storage: PostgresStorage) -> Iterator[Connection]:
    with closing(storage._connect("admin")) as connection:
        yield connection


@given(st.lists(ids, min_size=1, max_size=30), st.integers(1, 5000), st.data())
@example(["🦊", "é", "\x01", "\\x41", "%s", "a'b"], 1024, None)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_python_and_sql_agree(
    connection: Connection, objects: list[str], count: int, data: st.DataObject | None
) -> None:
    shards = [shard_of(one, count) for one in objects]
    assert all(0 <= shard < count for shard in shards)
    chosen = set(shards[::2])
    if data is not None:
        chosen |= data.draw(st.sets(st.integers(0, count - 1)))
    query = (
        f"SELECT {IN_SHARDS.format(id='k.i')} "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS k (i, n) ORDER BY k.n"
    )
    parameters = (*ShardSet.of(chosen, count).parameters, text_array(objects))
    found = [is_in for (is_in,) in connection.execute(query.encode(), parameters)]
    assert found == [shard in chosen for shard in shards]


def test_an_empty_set_is_false() -> None:
    assert not ShardSet.of((), 1024)
    assert ShardSet.of((1023,), 1024)


def setting_of(object_id: str, tenant: str) -> Commit:
    return Commit(key(object_id, tenant), None, alarms=setting(object_id, "x").alarms)


def of_shards(shards: Collection[int]) -> list[str]:
    return sorted(one for one in IDS if shard_of(one, 1024) in shards)


# --- the horizon feed ----------------------------------------------------------------------------


def due(reader: Reader, tenant: str = "", limit: int = 99) -> list[str]:
    """The ids of the objects with due alarms, page by page."""
    found: list[DueAlarm] = []
    while page := reader.due_alarms(NOW + 1, found[-1] if found else None, limit, (), tenant):
        found += page
    assert found == sorted(found, key=lambda each: (each.available_at, each.key))
    return sorted(each.key.object_id for each in found)


def test_the_feed_returns_alarms_of_its_shards_alone(postgres: str) -> None:
    with (
        followers(postgres, new_member()) as (one,),
        closing(one.storage.open_reader()) as reader,
    ):
        for tenant in ("", "acme"):
            commit(one.writer, *(setting_of(each, tenant) for each in IDS))
        assert due(reader) == due(reader, "acme") == []  # until it is told
        one.membership.feed(SOME)
        assert due(reader) == due(reader, "acme") == of_shards(SOME)
        assert 0 < len(of_shards(SOME)) < len(IDS)
        one.membership.feed(range(512, 1024))
        assert due(reader, limit=2) == of_shards(range(512, 1024))
        one.membership.feed(range(1024))
        assert due(reader) == sorted(IDS)
        one.membership.feed(())
        assert due(reader) == []
        one.membership.feed(SOME)
        one.rejoin()  # as another member, which owns none of them
        assert due(reader) == []


def test_without_a_cluster_the_feed_returns_all_alarms(postgres: str) -> None:
    storage = PostgresStorage(postgres)
    one = Follower(storage, new_member())
    commit(one.writer, setting("a", "x"))
    with closing(PostgresStorage(postgres).open_reader()) as reader:
        assert due(reader) == ["a"]
    one.close()
    with closing(storage.open_writer()), closing(storage.open_reader()) as reader:
        assert due(reader) == ["a"]


def test_the_feed_of_some_shards_reads_the_index_in_order(
    postgres: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its duration doesn't depend on the number of later alarms."""
    with (
        followers(postgres, new_member()) as (one,),
        closing(one.storage.open_reader()) as reader,
    ):
        admin.execute(
            "INSERT INTO durable_alarms (type_name, object_id, name, due_at, available_at) "
            "SELECT 'Cart', n::text, 'x', %s + n, %s + n FROM generate_series(1, 20000) AS n",
            (NOW, NOW),
        )
        admin.execute("ANALYZE durable_alarms")
        one.membership.feed(SOME)
        plans: list[str] = []
        execute: Any = Connection.execute

        def explained(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            if b"get_bit" in query:
                rows = execute(self, b"EXPLAIN " + query, *args)
                plans.append("\n".join(str(row[0]) for row in rows))
            return execute(self, query, *args, **kwargs)

        monkeypatch.setattr(Connection, "execute", explained)
        assert len(reader.due_alarms(NOW + 10**9, None, 256, ())) == 256
        (plan,) = plans
        assert "durable_alarms_by_time" in plan
        assert "Sort" not in plan


# --- claims --------------------------------------------------------------------------------------


def test_claims_of_shards_are_released_as_those_of_the_dead(postgres: str) -> None:
    """Without waiting for their end, and of all tenants. Those of other shards are held still."""
    tenants = ("", "acme", "zoo")
    later = NOW + 3600 * SECOND
    with followers(postgres, new_member(), new_member()) as (one, two):
        for tenant in tenants:
            commit(one.writer, *(setting_of(each, tenant) for each in IDS))
        keys = [ObjectKey("Cart", i, tenant).alarm("x") for i in IDS for tenant in tenants]
        assert len(one.writer.claim(keys, 1, NOW, later)) == len(keys)
        assert two.writer.claim(keys, 2, NOW, later) == []
        two.membership.release_claims(())
        assert two.writer.claim(keys, 2, NOW, later) == []
        two.membership.release_claims(SOME)
        found = two.writer.claim(keys, 2, NOW, later)
        assert sorted(each.key.object_id for each in found) == sorted(of_shards(SOME) * 3)
        assert {each.key.tenant for each in found} == set(tenants)
        assert {(each.due_at, each.crashes) for each in found} == {(NOW, 0)}  # suspects


def test_a_member_that_joins_again_keeps_the_claims_of_others(postgres: str) -> None:
    with followers(postgres, new_member(), new_member()) as (one, two):
        commit(one.writer, setting("a", "x"))
        assert one.writer.claim([alarm_key("a")], 1, NOW, NOW + SECOND)
        two.rejoin()
        assert two.writer.claim([alarm_key("a")], 2, NOW, NOW + SECOND) == []

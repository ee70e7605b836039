"""The conformance suite over the storages that come with the library."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.postgres import wait_until

from trio_durable import StorageInUse
from trio_durable.storage import (
    ClusterMembership,
    Durability,
    ForwardingStorage,
    Lease,
    MemoryStorage,
    NewMember,
    SharedStorage,
    SQLiteStorage,
    Storage,
    View,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.testing.conformance import StorageConformance
from trio_durable.testing.conformance._builders import save
from trio_durable.testing.conformance._crashes import CrashTests
from trio_durable.testing.conformance._tests import StorageTests

StorageTests.thoroughness = max(1, int(os.environ.get("TRIO_DURABLE_EXAMPLES", "15")) // 15)


class TestMemoryStorage(StorageConformance):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


@pytest.mark.parametrize("durability", ["full", "normal"])
class TestSQLiteStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path, durability: Durability) -> Storage:
        return SQLiteStorage(tmp_path / "objects.db", durability=durability)


class TestPostgresStorage(StorageConformance):
    # It releases the claims of a dead node, see `postgres/test_nodes.py`. A writer that was closed
    # in order has left its row, and its runtime has given its claims back.
    opens_for_one = False

    @pytest.fixture
    def storage(self, postgres: str) -> Storage:
        return PostgresStorage(postgres)


class OfMembers(ForwardingStorage):
    """A shared storage whose writer is the only member of a cluster, as its runtime makes it.

    It owns all shards, whose claims it has ended, and the reader feeds their alarms.
    """

    def __init__(self, shared: SharedStorage) -> None:
        super().__init__(shared)
        self._shared = shared

    def open_writer(self) -> Writer:
        writer = self._shared.open_member(NewMember("default", None, True, 600.0, {}, 0))
        membership = writer.membership
        assert isinstance(membership, ClusterMembership)
        views: list[View] = []
        losses: list[str] = []

        def lost(lease: Lease, problem: str) -> None:
            losses.append(problem)

        membership.watch(views.append)
        membership.follow(lambda call: call(), lost)
        mine = [membership.lease.holder] * membership.shards
        wait_until(lambda: losses or (views and list(views[-1].owners) == mine))
        assert losses == []
        shards: Collection[int] = range(membership.shards)
        membership.release_claims(shards)
        membership.feed(shards)
        return writer


class TestMemberOfPostgresStorage(StorageConformance):
    """An SQLite file has no members: its lock is that of `open_writer` in a cluster as well."""

    @pytest.fixture
    def storage(self, postgres: str) -> Storage:
        return OfMembers(PostgresStorage(postgres))

    def test_one_writer_at_a_time(self, storage: Storage, writer: Writer) -> None:
        """A member is no hindrance to others, but to a writer alone."""
        assert isinstance(storage, OfMembers)
        with pytest.raises(StorageInUse) as caught:
            storage.inner.open_writer()
        assert caught.value.location == storage.location
        assert self.commit(writer, save("a", 0)) == []


def test_no_two_groups_of_the_suite_share_a_name() -> None:
    """One would hide the other, since all are bases of one class."""
    found: dict[str, list[str]] = {}
    for group in StorageConformance.__mro__:
        for name in vars(group):
            if not name.startswith("_"):
                found.setdefault(name, []).append(group.__name__)
    assert {name: groups for name, groups in found.items() if len(groups) > 1} == {}


class Uncounted(StorageConformance):
    """Counts no crashes, so that the tests of these are skipped, and no others."""

    counts_crashes = False


@pytest.mark.parametrize(
    ("name", "is_skipped"),
    [
        ("test_opening_counts_only_the_marked", True),
        ("test_all_stale", False),
    ],
)
def test_a_group_skips_its_own_tests_alone(name: str, is_skipped: bool) -> None:
    request = Mock(function=Mock(__name__=name))
    counting = CrashTests.counting.__wrapped__  # type: ignore[attr-defined]
    try:
        counting(Uncounted(), request)
    except pytest.skip.Exception:
        skipped = True
    else:
        skipped = False
    assert skipped is is_skipped

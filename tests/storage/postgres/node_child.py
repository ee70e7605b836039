"""A process with a writer of its own, for tests that stop and kill it.

    python node_child.py CONNINFO TTL [member]

It says when the writer is open; a member, when it owns all shards. For each line that it reads it
saves an object, and says how that ended.
"""

from __future__ import annotations

import sys
import threading

from trio_durable import ObjectKey
from trio_durable.storage import (
    ClusterMembership,
    Commit,
    NewMember,
    StorageFault,
    View,
    Writer,
)
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings


def main(conninfo: str, ttl: float, is_member: bool) -> None:
    storage = PostgresStorage(conninfo)
    storage._node = NodeSettings(ttl=ttl)
    writer = open_member(storage, ttl) if is_member else storage.open_writer()
    sys.stdout.write("open\n")
    sys.stdout.flush()
    for line in sys.stdin:
        try:
            writer.commit([Commit(ObjectKey("Cart", line.strip()), 0, b"1")], 0)
        except StorageFault as fault:
            sys.stdout.write(f"{type(fault).__name__}\n")
        else:
            sys.stdout.write("saved\n")
        sys.stdout.flush()


def open_member(storage: PostgresStorage, ttl: float) -> Writer:
    writer = storage.open_member(NewMember("default", None, True, ttl, {}, 0))
    membership = writer.membership
    assert isinstance(membership, ClusterMembership)
    owns_all = threading.Event()

    def seen(view: View) -> None:
        if set(view.owners) == {membership.lease.holder}:
            owns_all.set()

    membership.watch(seen)
    membership.follow(lambda call: call(), lambda lease, problem: None)
    owns_all.wait()
    return writer


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), "member" in sys.argv)

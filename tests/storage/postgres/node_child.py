"""A process with a writer of its own, for tests that stop and kill it.

    python node_child.py CONNINFO TTL

It says when the writer is open. For each line that it reads it saves an object, and says how that
ended.
"""

from __future__ import annotations

import sys

from trio_durable import ObjectKey
from trio_durable.storage import Commit, StorageFault
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings


def main(conninfo: str, ttl: float) -> None:
    storage = PostgresStorage(conninfo)
    storage._node = NodeSettings(ttl=ttl)
    writer = storage.open_writer()
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


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

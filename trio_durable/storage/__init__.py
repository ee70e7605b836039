"""Storages of objects and alarms: the contract, and the implementations in the library.

A `Storage` opens a `Writer` and a `Reader`. Both are synchronous and know no event loop: the
runtime runs a writer and a reader in a thread each, or inline where a test wants virtual time. They
see keys and bytes, never objects.

An implementation must keep these conditions. ``trio_durable.testing.conformance`` tests them, as
far as one process can:

1. A commit is atomic: either all of a `Commit` applies, or nothing.
2. A batch is one transaction: if `Writer.commit` raises, nothing of the batch is applied. If the
   fault is of a part of the batch, it should be a `PartialFault`: the runtime then commits the rest
   without that part. After any other fault all commits of the batch fail.
3. A commit is conditional: it applies only if the stored revision equals `Commit.revision`, where
   0 stands for no row. A commit that doesn't apply is stale: it changes nothing, `Writer.commit`
   returns its position, and the rest of the batch applies. Since revisions restart at 1 after a
   deletion, a storage with several concurrent writers also compares epochs: a new row gets
   `Commit.epoch`, and a commit based on a row applies only to the same epoch. Other storages may
   ignore epochs, and load 0.
4. A commit is durable: when `Writer.commit` returns, its changes survive a kill of the process, and
   a power loss if the storage's durability promises that.
5. Bytes are exact: states and payloads are read as they were written.
6. A reader sees every batch that was committed before the read began.
7. The keys of a batch are distinct. The runtime guarantees this. Excepted are commits from outside
   that do nothing but send messages and record once-keys, which may have any key of the tenant.
8. The alarms of a commit are part of it: it applies only if every claim that it acknowledges is
   held, and its state and alarms apply together.
9. A claim is exclusive: of several concurrent claims on one alarm, one succeeds. It is held until
   the alarm is acknowledged, postponed, set or cancelled, or until another claim on it succeeds,
   which is possible from the claim's expiry on.
10. A storage that opens for one writer at a time releases all claims when it opens, because every
    process that held one is dead. It may leave those of a writer that was closed.
11. Tenants are isolated: the same type and id under another tenant is another object. The first
    commit that writes anything under a tenant creates it. A tenant that doesn't exist reads as
    empty, and nothing of it can be claimed, renewed or postponed. The tenant "" always exists.
12. Crashes are counted (optional). A claim has outlived its process if it is held when the storage
    opens for one writer, or if another claim replaces it after it ran out. Its alarm then becomes
    a suspect, with 0 as ``crashes``. If it was one already, ``crashes`` grows by 1 if `Writer.mark`
    was called for that claim, and stays otherwise. A suspect remains one until it is acknowledged,
    acquitted, postponed without ``crashes``, or set again. A claim for a time after the year 9999
    makes no suspects. A storage that doesn't count leaves ``crashes`` None.
13. Messages are part of a commit (optional, see `Storage.keeps_messages`). Its state, alarms,
    messages and once-keys apply together, and only if all messages that it acknowledges, buries or
    withdraws are waiting, and no once-key that it records is taken. A commit that changes messages
    alone is conditional on its revision, too. A message is either waiting, or a dead letter, or
    gone. The messages that wait for an object when it is deleted become dead letters. The commits
    of a batch count as applied one after the other.
14. Crashes of messages are counted. `Writer.mark_message` marks a message, until it is deferred or
    gone. When the storage opens for one writer, or a member acquires the shard of its receiver,
    the process that marked it is dead: its ``crashes`` grow by 1, and the mark ends.
15. A once-key is there until it expires, whatever becomes of its object. From ``expires_at`` on it
    counts as absent, whether or not it has been removed.

16. A recurring alarm is one row, whose next firing replaces it in the commit that acknowledges it.
    `NewAlarm.onto` is decided in the transaction that applies the commit. A `STOPPED` row is never
    due, listed or revived, and isn't counted; it is removed as other rows are.

The library has `SQLiteStorage`, ``PostgresStorage`` (in ``trio_durable.storage.postgres``, because
it needs psycopg) and `MemoryStorage`, which is the shortest implementation to read.
`ForwardingStorage`, `ForwardingWriter` and `ForwardingReader` are for a storage around another one.
"""

from ._contract import Durability, Reader, SharedStorage, Storage, Writer
from ._faults import CorruptRow, LeaseOver, PartialFault, SpoiltRow, StorageFault
from ._forwarding import ForwardingReader, ForwardingStorage, ForwardingWriter
from ._membership import (
    ClusterMembership,
    Lease,
    Member,
    MemberRow,
    Membership,
    NewMember,
    View,
)
from ._messages import (
    RECEIVER_DELETED,
    Burial,
    DeadMessage,
    Deferral,
    DueMessage,
    MessageChanges,
    MessageKey,
    MessageSummary,
    NewMessage,
    OnceKey,
    OnceReply,
    Receiver,
    RetriedMessage,
    StoredMessage,
    lane_of,
    new_token,
)
from ._moves import Move
from ._records import (
    MOVED,
    NO_TIME,
    STOPPED,
    AlarmChanges,
    AlarmRow,
    AlarmStatus,
    Commit,
    DeadFiring,
    DueAlarm,
    Finding,
    FindingStatus,
    NewAlarm,
    ObjectRow,
    Onto,
    Postponement,
    StoredAlarm,
    StoredObject,
    TypeSummary,
    new_epoch,
)
from .memory import MemoryStorage
from .sqlite import SQLiteStorage

__all__ = [
    "MOVED",
    "NO_TIME",
    "RECEIVER_DELETED",
    "STOPPED",
    "AlarmChanges",
    "AlarmRow",
    "AlarmStatus",
    "Burial",
    "ClusterMembership",
    "Commit",
    "CorruptRow",
    "DeadFiring",
    "DeadMessage",
    "Deferral",
    "DueAlarm",
    "DueMessage",
    "Durability",
    "Finding",
    "FindingStatus",
    "ForwardingReader",
    "ForwardingStorage",
    "ForwardingWriter",
    "Lease",
    "LeaseOver",
    "Member",
    "MemberRow",
    "Membership",
    "MemoryStorage",
    "MessageChanges",
    "MessageKey",
    "MessageSummary",
    "Move",
    "NewAlarm",
    "NewMember",
    "NewMessage",
    "ObjectRow",
    "OnceKey",
    "OnceReply",
    "Onto",
    "PartialFault",
    "Postponement",
    "Reader",
    "Receiver",
    "RetriedMessage",
    "SQLiteStorage",
    "SharedStorage",
    "SpoiltRow",
    "Storage",
    "StorageFault",
    "StoredAlarm",
    "StoredMessage",
    "StoredObject",
    "TypeSummary",
    "View",
    "Writer",
    "lane_of",
    "new_epoch",
    "new_token",
]

"""Messages in the contract of a storage: the parts of `Writer` and `Reader` that are about them.

They are optional. Each method has a default for a storage that keeps no messages, whose
`Storage.keeps_messages` is False.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext

from .._keys import ObjectKey
from ._faults import StorageFault
from ._messages import (
    DeadMessage,
    Deferral,
    DueMessage,
    MessageKey,
    MessageSummary,
    OnceKey,
    OnceReply,
    Receiver,
    RetriedMessage,
    StoredMessage,
)


class MessageWriter:
    """Changes of messages and once-keys apart from `Writer.commit`."""

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        """Apply the deferrals whose messages are waiting, in one transaction.

        Each ends the mark of its message. The contract sets no upper bound. The default does
        nothing.

        Raises:
            PartialFault: Some can't be applied, and none was; the caller may call in parts.
            StorageFault: Writing failed. None was applied, unless the outcome is unknown.
        """

    def mark_message(self, message: MessageKey) -> bool:
        """Note durably that the delivery of a suspect begins, see condition 14.

        Returns:
            Whether it is waiting.

        Raises:
            StorageFault: Writing failed.
        """
        return False

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        """Let dead letters wait again, in the order of ``tokens``, in one transaction.

        Each gets a new number, at the end of its lane. It is awake, its failures, crashes and hops
        are 0, and it has no sender key any more; the other fields stay, the last error included.

        Args:
            tokens: Distinct tokens. Those that aren't of dead letters are left out.
            tenant: The tenant's name.

        Raises:
            StorageFault: Writing failed.
        """
        return []

    def drop_messages(self, tokens: Sequence[int], tenant: str = "") -> list[int]:
        """Remove dead letters, in one transaction. Returns the tokens of the handled ones.

        Waiting messages are left alone.

        Raises:
            StorageFault: Writing failed.
        """
        return []

    def clean_once(self, now: int, limit: int, tenant: str = "") -> int:
        """Remove up to ``limit`` once-keys that have expired by ``now``. Returns their number.

        A runtime removes 256 at a time.

        Raises:
            StorageFault: Writing failed.
        """
        return 0

    def rename_messages(self, old: str, new: str, tenant: str = "") -> None:
        """Rename a type in messages, dead letters and once-keys, in one transaction.

        As receiver, as sender, and in lanes that are named by `lane_of` their sender. Lanes that
        become one are in the order of their numbers. A once-key that is there under the new name
        stays as it is, and the one of the old name is removed.

        Raises:
            StorageFault: Writing failed.
        """

    def restore_messages(
        self,
        waiting: Sequence[StoredMessage],
        dead: Sequence[DeadMessage],
        once: Sequence[OnceReply],
        now: int,
    ) -> tuple[list[int], list[OnceKey]]:
        """Store messages, dead letters and once-keys of an export, in one transaction.

        The dead letters and then the waiting messages get new numbers, in the order of the
        sequences. All other fields stay. A tenant that doesn't exist is created.

        Args:
            waiting: Messages, with tokens that are distinct from those of the dead letters, too.
            dead: Dead letters.
            once: Once-keys.
            now: The current wall time, which decides what has expired.

        Returns:
            The tokens of messages that are there already, waiting or dead, in the same tenant, and
            the once-keys that are there and haven't expired. These were left as they are there.

        Raises:
            StorageFault: Writing failed, or the storage keeps no messages.
        """
        if waiting or dead or once:
            raise StorageFault("this storage keeps no messages")
        return [], []


class MessageReader:
    """Reads of messages and once-keys. The defaults find nothing."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all reads of the block see one state, that of its first read.

        The default doesn't, for a storage that keeps no messages.
        """
        return nullcontext()

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        """Objects for which messages wait, in an order of the storage's own, which doesn't change.

        A page begins behind ``after``, whether or not messages wait for that one still. The
        duration depends on the length of the page, and not on the number of messages.

        Args:
            after: Only objects after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def read_mail(
        self, to: ObjectKey, after: str | None, lanes: int, limit: int
    ) -> list[StoredMessage]:
        """The first messages of each of the next lanes of one receiver, by lane and then number.

        Lanes that sleep are among them. The messages without a lane count as one, the first;
        sleeping ones are left out, see `due_messages`. The duration depends on ``lanes`` and
        ``limit``, and not on the number of messages.

        Args:
            to: The receiver.
            after: Only lanes after this one; None for all.
            lanes: The number of lanes.
            limit: The number of messages of each lane.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def read_lane(self, to: ObjectKey, lane: str, after: int, limit: int) -> list[StoredMessage]:
        """The next messages of one lane, by number; of the lane "", the awake ones.

        With several writers, a message without a lane may appear behind one with a higher number.

        Args:
            to: The receiver.
            lane: The lane.
            after: Only messages after this number; 0 for all.
            limit: The length of the page.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def load_messages(self, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
        """Messages in the order of ``keys``; None where that one isn't waiting any more.

        Raises:
            StorageFault: Reading failed.
        """
        return [None] * len(keys)

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        """Feed of sleeping messages: those with ``wake_at`` before ``before``, by time and number.

        Those whose time has passed are among them, until they are handled or deferred. Its duration
        must not depend on the number of others, but may on that of ``except_types``.

        Args:
            before: The horizon.
            after: Only entries after this one.
            limit: The length of the page.
            except_types: Leave out messages to objects of these types.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        """The message that an object has waiting under a sender key.

        Raises:
            StorageFault: Reading failed.
        """
        return None

    def list_messages(
        self,
        type_name: str | None,
        object_id: str | None,
        after: MessageKey | None,
        limit: int,
        tenant: str = "",
    ) -> list[StoredMessage]:
        """Waiting messages, by receiver in the order of `list_receivers`, then lane and number.

        Args:
            type_name: Only messages to objects of this type; None for all.
            object_id: Only messages to this object of the type; None for all.
            after: Only messages after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def list_dead_messages(
        self, type_name: str | None, after: int, limit: int, tenant: str = ""
    ) -> list[DeadMessage]:
        """Dead letters, by number.

        Args:
            type_name: Only messages to objects of this type; None for all.
            after: Only those after this number; 0 for all.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def load_dead_messages(
        self, tokens: Sequence[int], tenant: str = ""
    ) -> list[DeadMessage | None]:
        """Dead letters in the order of ``tokens``; None where there is no such one.

        Raises:
            StorageFault: Reading failed.
        """
        return [None] * len(tokens)

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        """Once-keys in the order of ``keys``; None for missing and expired ones.

        Raises:
            StorageFault: Reading failed.
        """
        return [None] * len(keys)

    def list_once(self, after: OnceKey | None, limit: int, tenant: str = "") -> list[OnceReply]:
        """All once-keys, expired ones too, by the object's type and id, and then key.

        Args:
            after: Only keys after this one.
            limit: The length of the page.
            tenant: The tenant's name.

        Raises:
            StorageFault: Reading failed.
        """
        return []

    def summarize_messages(self, tenant: str = "") -> list[MessageSummary]:
        """Counts of each type to whose objects messages wait or are dead, by type name.

        Reads an index of all messages.

        Raises:
            StorageFault: Reading failed.
        """
        return []

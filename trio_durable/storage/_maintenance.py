"""Maintenance of a storage by itself: its log, and work that is due and that no reply waits for."""

from __future__ import annotations


class MaintainedWriter:
    """The part of a `Writer` that the runtime calls between transactions."""

    @property
    def log_bytes(self) -> int | None:
        """The size in bytes of the log that is not yet written to the database, as of late.

        None if the storage has none of its own. May be read from any thread, and doesn't block.
        """
        return None

    def maintain(self) -> None:
        """Do work of the storage's own that is due, such as a checkpoint of its log.

        The runtime calls it between transactions, when it has released the replies of the one
        before. The next transaction waits for it, so it takes next to no time if nothing is due. It
        doesn't change what is stored, and nothing depends on it: a fault is ignored, and only a
        runtime calls it. The default does nothing.

        Raises:
            StorageFault: It failed.
        """

"""Renaming of types in the contract of a storage: an optional part of `Writer`."""

from __future__ import annotations

from ._faults import StorageFault


class RenamingWriter:
    """Changes of the names of types."""

    def rename_type(self, old: str, new: str, tenant: str = "") -> int:
        """Rename a type in all that is stored of a tenant, in one transaction.

        In objects, alarms and dead letters of alarms, and in all of `Writer.rename_messages`:
        lanes, senders, receivers and once-keys. So earlier messages come before later ones, and a
        key that was used stays used. Nothing is renamed if an object, or an alarm of one, has both
        names. The default refuses.

        Returns:
            The number of objects that were renamed.

        Raises:
            PartialFault: Something has both names.
            StorageFault: Writing failed.
        """
        raise StorageFault("this storage can't rename types")

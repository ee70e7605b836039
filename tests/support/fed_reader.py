"""A member's reader of a storage that several members share."""

from __future__ import annotations

from collections.abc import Callable, Collection

from trio_durable import ObjectKey
from trio_durable.storage import DueAlarm, DueMessage, ForwardingReader, Reader, Receiver


class FedReader(ForwardingReader):
    """The due alarms, the receivers and the due messages of the objects that a member is fed.

    Args:
        is_fed: True for the id of such an object.
        inner: The reader of all.
    """

    def __init__(self, is_fed: Callable[[str], bool], inner: Reader) -> None:
        super().__init__(inner)
        self._is_fed = is_fed

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        found = super().due_alarms(before, after, limit, except_types, tenant)
        return [each for each in found if self._is_fed(each.key.object_id)]

    def list_receivers(
        self, after: ObjectKey | None, limit: int, tenant: str = ""
    ) -> list[Receiver]:
        found = super().list_receivers(after, limit, tenant)
        return [each for each in found if self._is_fed(each.key.object_id)]

    def due_messages(
        self,
        before: int,
        after: DueMessage | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueMessage]:
        found = super().due_messages(before, after, limit, except_types, tenant)
        return [each for each in found if self._is_fed(each.key.to.object_id)]

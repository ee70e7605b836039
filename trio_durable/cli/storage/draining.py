"""Draining: waits until no messages wait in a storage, and no runtime has it open."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from ..._clock import SystemClock
from ..._errors import StorageInUse
from ...storage import MessageSummary, Reader, Storage, Writer
from ..command_line import command_line
from ..errors import CommandError
from ..output import quantity
from .formatting import format_relative
from .open import open_reader, open_writer
from .paging import select_tenants

_POLL_SECONDS = 0.2

Waiting = list[tuple[str, MessageSummary]]


class Patience:
    """A time limit.

    Args:
        seconds: How long to wait; 0 for not at all.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def wait(self) -> bool:
        """Wait for a moment. False if the time is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_POLL_SECONDS, left))
        return True


def waiting_in(reader: Reader, tenants: Iterable[str]) -> Waiting:
    """The messages that wait, by tenant and type of their receivers. Dead ones don't count."""
    return [
        (tenant, each)
        for tenant in tenants
        for each in reader.summarize_messages(tenant)
        if each.waiting
    ]


def waiting_text(waiting: Waiting) -> str:
    """The number of waiting messages, and since when, as text."""
    now = SystemClock().now()
    parts = []
    for tenant, each in waiting:
        whose = f" of tenant {tenant}" if tenant else ""
        assert each.oldest is not None  # since some wait
        since = f"the oldest sent {format_relative(each.oldest, now)}"
        parts.append(f"{quantity(each.waiting, 'message')} to {each.type_name}{whose}, {since}")
    return "; ".join(parts)


def drain(storage: Storage, tenant: str | None, patience: Patience) -> None:
    """Wait until no messages wait. Runtimes that are open deliver them.

    Raises:
        CommandError: Some still wait when the time is over.
    """
    with open_reader(storage, tenant) as reader:
        while waiting := waiting_in(reader, select_tenants(reader, tenant)):
            if not patience.wait():
                raise CommandError(
                    f"there still wait in {storage.location}: {waiting_text(waiting)}; give it "
                    "more time, see to it that a runtime serves these types, or look at them with "
                    f"`{command_line('messages', 'list', storage=storage.location, tenant=tenant)}`"
                )


@contextmanager
def writer_in_time(storage: Storage, patience: Patience) -> Iterator[Writer]:
    """Open the writer once no runtime has the storage open.

    Raises:
        StorageInUse: One still has when the time is over.
    """
    with ExitStack() as stack:
        while True:
            try:
                writer = stack.enter_context(open_writer(storage))
                break
            except StorageInUse:
                if not patience.wait():
                    raise
        yield writer

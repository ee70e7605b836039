"""Leases that a test ends."""

from __future__ import annotations

from trio_durable.storage import Lease


class FakeLease(Lease):
    """Valid until the test says that it is over."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self.is_over = False

    @property
    def holder(self) -> str:
        return self._holder

    def is_valid(self) -> bool:
        return not self.is_over

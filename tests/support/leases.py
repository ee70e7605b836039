"""Leases that a test ends."""

from __future__ import annotations

import math

from trio_durable.storage import Lease


class FakeLease(Lease):
    """Valid until the test says that it is over."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self.valid_until = math.inf

    @property
    def holder(self) -> str:
        return self._holder

    @property
    def is_over(self) -> bool:
        return not self.is_valid()

    @is_over.setter
    def is_over(self, is_over: bool) -> None:
        self.valid_until = -math.inf if is_over else math.inf

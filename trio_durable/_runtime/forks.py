"""Forks: a forked process has a copy of each open runtime, and none of its threads."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An open runtime."""

    def forked(self) -> None:
        """Close it: it is the copy of one, in a forked process."""
        ...


open_runtimes: WeakSet[Forkable] = WeakSet()
"""The runtimes to mark in a forked process."""


def _mark_forked() -> None:
    for opened in list(open_runtimes):
        opened.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_mark_forked)

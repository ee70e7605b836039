"""Phase and job: the stage of an activation's life, and the work that keeps it busy."""

from __future__ import annotations

from enum import Enum

from .._eventloop.loop import CallbackWaiter
from .wait_graph import Turn
from .worker import Worker


class Phase(Enum):
    """The stage of an activation's life."""

    NEW = "new"
    """Nothing is known of the stored row."""
    LOADING = "loading"
    """The row is being read."""
    LOADED = "loaded"
    """The row is known. ``after_load`` has not run."""
    ACTIVATING = "activating"
    """``after_load`` runs."""
    READY = "ready"
    """Calls are served."""


class Job:
    """A load or an ``async def`` turn, which keeps its object busy."""

    __slots__ = ("began", "limit", "name", "observed_at", "turn", "worker")

    def __init__(self, name: str, began: float, turn: Turn | None) -> None:
        self.name: str = name
        self.began: float = began
        """The loop's time, in seconds."""
        self.turn: Turn | None = turn
        """The turn; None for a load."""
        self.worker: Worker | None = None
        """The worker that has begun the turn."""
        self.limit: CallbackWaiter | None = None
        """Interrupts the turn if it takes too long."""
        self.observed_at: float = 0.0
        """See `Observation.begin_async`."""

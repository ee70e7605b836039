"""Settings of the scheduler, and the instance of Oban that it may be given."""

from __future__ import annotations

from typing import Protocol

import attrs

from ..._durations import positive_int


class ObanQueueInfo(Protocol):
    """One queue of an instance of Oban, as ``Oban.check_queue`` returns it."""

    @property
    def node(self) -> str:
        """The name of the instance's node."""
        ...

    @property
    def uuid(self) -> str:
        """The id of the producer, which fetches the queue's jobs."""
        ...


class ObanInstance(Protocol):
    """An instance of Oban: the part of ``oban.Oban`` that the scheduler uses."""

    async def start_queue(
        self, *, queue: str, limit: int, paused: bool = False, node: str | None = None
    ) -> None:
        """See ``oban.Oban.start_queue``."""
        ...

    async def stop_queue(self, queue: str, *, node: str | None = None) -> None:
        """See ``oban.Oban.stop_queue``."""
        ...

    async def pause_queue(self, queue: str, *, node: str | None = None) -> None:
        """See ``oban.Oban.pause_queue``."""
        ...

    async def resume_queue(self, queue: str, *, node: str | None = None) -> None:
        """See ``oban.Oban.resume_queue``."""
        ...

    async def cancel_job(self, job: int) -> None:
        """See ``oban.Oban.cancel_job``."""
        ...

    def check_queue(self, queue: str) -> ObanQueueInfo | None:
        """See ``oban.Oban.check_queue``."""
        ...


@attrs.frozen
class ObanScheduler:
    """Settings of a scheduler whose alarms are jobs of Oban.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: ``queue`` or ``prefix`` is blank, or ``limit`` isn't an int of 1 or more.
    """

    queue: str = "durable_alarms"
    """The queue of the jobs, which should have no others. Its processes serve the same types."""
    instance: ObanInstance | None = None
    """The application's own instance, started on the same database; None for one that belongs to
    the runtime, and neither leads nor prunes."""
    limit: int = attrs.field(default=50, kw_only=True)
    """The number of alarms that a process handles at a time."""
    prefix: str = attrs.field(default="public", kw_only=True)
    """The schema of Oban's tables."""

    def __attrs_post_init__(self) -> None:
        for name, value in (("queue", self.queue), ("prefix", self.prefix)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
            if not value.strip():
                raise ValueError(f"{name} must not be blank")
        positive_int(self.limit, "limit")

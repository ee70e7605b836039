"""Simulated machine: the processes that follow each other on one disk and by one clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..._api.durable_object import DurableObject
from ._call import Call
from ._disk import Disk
from ._faults import Faults, Life
from ._operations import Record
from ._process import MAX_STEP_SECONDS, Process, WallClock
from ._second_owner import run_second_owner

_SECONDS_AS_REPLACED = 60.0
"""How long a process goes on after a second owner. An alarm that it can't acknowledge keeps it busy
for ever."""


class Machine:
    """A machine on which a process always runs: the next one starts when one has ended.

    Args:
        disk: Its disk.
        clock: Its clock.
        faults: The faults that end or disturb processes.
        record: The record of calls.
        objects: The classes that processes serve.
        observed: The classes whose calls are recorded.
        polling_interval: The polling interval of the runtimes, in seconds.
    """

    def __init__(
        self,
        disk: Disk,
        clock: WallClock,
        faults: Faults,
        record: Record,
        objects: Iterable[type[DurableObject]],
        observed: frozenset[type[DurableObject]],
        polling_interval: float,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._faults = faults
        self._record = record
        self._objects = tuple(objects)
        self._observed = observed
        self._polling_interval = polling_interval
        self._now = 0.0
        self.calls: Sequence[Call] = ()
        """The calls of the step, which the callers of a second owner make as well."""
        self.trouble: list[BaseException] = []
        """The errors of second owners."""
        self.process: Process
        """The process that runs."""
        self.life: Life
        """Its life; while a second owner runs, that one's."""

    def start(self) -> None:
        """Start the first process."""
        self.process = self._start()

    def run_until_idle(self) -> None:
        """Run the process until it is idle. If it dies, start the next one and go on with that.

        Raises:
            AssertionError: It isn't idle after an hour.
        """
        while True:
            is_idle = self.process.run_until(self.process.is_idle, MAX_STEP_SECONDS)
            if not self.life.is_heard:
                self.recover(0)
            elif is_idle:
                return
            else:
                statistics = self.process.runtime.statistics()
                raise AssertionError(
                    f"the process isn't idle after an hour of virtual time: {statistics}"
                )

    def recover(self, down_for: float) -> None:
        """Dispose of a process that is over, and start the next one.

        One that was replaced goes on until it is idle, or for a minute.
        """
        if self.life.is_replaced:
            self.process.run_until(self.process.is_idle, _SECONDS_AS_REPLACED)
            self.life.is_over = True
        self._record.end_all()
        self._now = self.process.now + down_for
        self.process.dispose()
        self._disk.release()
        self.process = self._start()

    def _start(self) -> Process:
        self.life = life = Life(self._faults, self._take_over)
        return Process(
            life,
            self._disk.mount(life, self._record),
            self._objects,
            self._observed,
            self._record,
            self._now,
            self._clock,
            self._polling_interval,
        )

    def _take_over(self) -> None:
        """Run a second owner, after which the first process goes on with its memory."""
        # The process may be one that starts, so it isn't `self.process` yet.
        loop, life = self._clock.loop, self.life
        assert loop is not None
        self._now = loop.now
        self._disk.release()
        try:
            self._now = run_second_owner(self._start, self.calls)
        except BaseException as error:  # noqa: BLE001  # the first process would catch it
            self.trouble.append(error)
        self._disk.release()
        self.life, self._clock.loop = life, loop
        loop.advance(max(self._now, loop.now))

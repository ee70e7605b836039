"""Schedulers deliver alarms: their contract, and the library's timing wheel."""

from ._contract import Destination, Scheduler, SchedulerStatistics
from ._wheel.scheduler import WheelScheduler
from ._wheel.timing_wheel import TimingWheel

__all__ = ["Destination", "Scheduler", "SchedulerStatistics", "TimingWheel", "WheelScheduler"]

"""Who delivers alarms: the contract, and the timing wheel that comes with the library."""

from ._contract import Scheduler
from ._wheel.scheduler import WheelScheduler
from ._wheel.timing_wheel import TimingWheel

__all__ = ["Scheduler", "TimingWheel", "WheelScheduler"]

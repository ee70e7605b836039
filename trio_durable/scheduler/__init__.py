"""Who delivers alarms: the contract, and the timing wheel that comes with the library."""

from ._contract import Scheduler
from .wheel import TimingWheel
from .wheel_scheduler import WheelScheduler

__all__ = ["Scheduler", "TimingWheel", "WheelScheduler"]

"""Simulation: searches for bugs that only crashes, failing commits or late alarms bring about.

`Simulation` is a Hypothesis state machine over your own classes. It drives the real runtime, on a
simulated disk and in virtual time. ``docs/testing.md`` shows how to use it.
"""

try:
    import hypothesis as _hypothesis
except ModuleNotFoundError as _error:
    if _error.name != "hypothesis":
        raise
    raise ImportError(
        "trio_durable.testing.simulate needs hypothesis; install trio-durable[testing]",
        name="hypothesis",
    ) from _error

from ._call import Call
from ._outside import outside
from ._report import SimulationReport, SimulationWarning
from ._running import run_simulation
from ._simulation import Simulation
from ._tenant import SimulatedTenant

__all__ = [
    "Call",
    "SimulatedTenant",
    "Simulation",
    "SimulationReport",
    "SimulationWarning",
    "outside",
    "run_simulation",
]

del _hypothesis

# The module from which printed stories import it, and filters of warnings name it.
Call.__module__ = SimulationWarning.__module__ = __name__

"""A search for what crashes, failing commits and late alarms do to durable objects.

`Simulation` is a state machine of hypothesis over your own classes, in the real runtime on a
simulated disk and in virtual time; ``docs/testing.md`` shows how to use it.
"""

try:
    import hypothesis as _hypothesis
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ImportError(
        "trio_durable.testing.simulate needs hypothesis; install trio-durable[testing]",
        name="hypothesis",
    ) from error

from ._outside import outside
from ._process import Call
from ._simulation import Simulation

__all__ = ["Call", "Simulation", "outside"]

del _hypothesis

# Where a story imports it from.
Call.__module__ = __name__

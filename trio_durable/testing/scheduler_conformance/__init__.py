"""Conformance suite for schedulers: pytest tests of the contract in `trio_durable.scheduler`.

The scheduler of this library passes it. To run it on another scheduler, subclass
`SchedulerConformance` and override its method ``make_scheduler``; ``docs/schedulers.md`` shows how.
"""

import pkgutil

try:
    import pytest
except ModuleNotFoundError as _error:
    if _error.name != "pytest":
        raise
    raise ImportError(
        "trio_durable.testing.scheduler_conformance needs pytest; install trio-durable[testing]",
        name=_error.name,
    ) from _error

# By itself pytest rewrites assertions in the user's test modules only. Without rewriting, a failed
# test wouldn't show the compared values.
pytest.register_assert_rewrite(
    *(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
)

from ._bench import SchedulerParts  # noqa: E402  # after the registration above
from ._suite import SchedulerConformance  # noqa: E402

__all__ = ["SchedulerConformance", "SchedulerParts"]

del pkgutil, pytest

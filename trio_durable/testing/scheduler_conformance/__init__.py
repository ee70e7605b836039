"""Conformance tests for schedulers, to run with pytest over one of your own.

`SchedulerConformance` is the suite that the library's own scheduler passes; a subclass makes the
scheduler under test. ``docs/schedulers.md`` shows how.
"""

import pkgutil

try:
    import pytest
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    raise ImportError(
        "trio_durable.testing.scheduler_conformance needs pytest, which isn't there; "
        "install trio-durable[testing]",
        name=error.name,
    ) from error

# pytest rewrites the assertions of a user's own test modules alone. Without this, a test that
# fails would not say what it had found.
pytest.register_assert_rewrite(
    *(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
)

from ._bench import SchedulerParts  # noqa: E402  # once it will be rewritten
from ._suite import SchedulerConformance  # noqa: E402

__all__ = ["SchedulerConformance", "SchedulerParts"]

del pkgutil, pytest

"""Conformance suite for storages: pytest tests of the contract in `trio_durable.storage`.

The storages of this library pass it. To run it on another storage, subclass `StorageConformance`
and override its fixture ``storage``; ``docs/storages.md`` shows how.
"""

import pkgutil

try:
    import hypothesis
    import pytest
except ModuleNotFoundError as _error:
    if _error.name not in ("hypothesis", "pytest"):
        raise
    raise ImportError(
        "trio_durable.testing.conformance needs pytest and hypothesis, "
        f"and {_error.name} isn't there; install trio-durable[testing]",
        name=_error.name,
    ) from _error

# By itself pytest rewrites assertions in the user's test modules only. Without rewriting, a failed
# test wouldn't show the compared values.
pytest.register_assert_rewrite(
    *(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
)

from ._suite import StorageConformance  # noqa: E402  # after the registration above

__all__ = ["StorageConformance"]

del hypothesis, pkgutil, pytest

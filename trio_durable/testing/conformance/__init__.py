"""What every storage must do, as tests of pytest, to run over one of your own.

`StorageConformance` is the suite that the storages of this library pass; a subclass says which
storage it is run over. ``docs/storages.md`` shows how.
"""

import pkgutil

try:
    import hypothesis
    import pytest
except ModuleNotFoundError as error:
    if error.name not in ("hypothesis", "pytest"):
        raise
    raise ImportError(
        "trio_durable.testing.conformance needs pytest and hypothesis, "
        f"and {error.name} isn't there; install trio-durable[testing]",
        name=error.name,
    ) from error

# pytest rewrites the assertions of a user's own test modules alone. Without this, a test that
# fails would not say what it had found.
pytest.register_assert_rewrite(
    *(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
)

from ._suite import StorageConformance  # noqa: E402  # once it will be rewritten

__all__ = ["StorageConformance"]

del hypothesis, pkgutil, pytest

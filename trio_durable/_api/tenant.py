"""The objects of one tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import InvalidTenant
from .._keys import tenant_problem
from .objects import Objects

if TYPE_CHECKING:
    from .runtime import DurableRuntime


class Tenant(Objects):
    """The view of a runtime for the objects of one tenant, made by `DurableRuntime.tenant`.

    Each tenant has tables of its own, and the same type and id under another tenant is another
    object. Calls from within a turn, through ``self.ctx.runtime`` or a class's own client, reach
    objects of the turn's tenant.
    """

    def __init__(self, runtime: DurableRuntime, name: str) -> None:
        self._root = runtime
        self._tenant = name
        self._registry = runtime._registry
        self._opened = runtime._opened
        self._administration = runtime._administration

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self._tenant

    @property
    def root(self) -> DurableRuntime:
        """See `Objects.root`."""
        return self._root

    def __repr__(self) -> str:
        return f"<tenant {self._tenant} of {self._root!r}>"


def check_tenant(name: str) -> None:
    """Check a tenant's name.

    Raises:
        InvalidTenant: ``name`` can't be one.
    """
    problem = tenant_problem(name)
    if problem is not None:
        raise InvalidTenant(f"{name!r:.80}", problem)

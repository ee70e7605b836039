"""The objects of one tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import InvalidTenant
from .._keys import tenant_problem
from .objects import Objects

if TYPE_CHECKING:
    from .runtime import DurableRuntime


class Tenant(Objects):
    """One tenant's objects, in tables of their own: what `DurableRuntime.tenant` returns.

    The same type and id under another tenant is another object. What one calls from within its
    turns, through ``self.ctx.runtime`` or a class's own client, is of its tenant too.
    """

    def __init__(self, runtime: DurableRuntime, name: str) -> None:
        self._root = runtime
        self._tenant = name
        self._registry = runtime._registry
        self._opened = runtime._opened

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
    """Refuse what can't be a tenant's name.

    Raises:
        InvalidTenant: It can't.
    """
    problem = tenant_problem(name)
    if problem is not None:
        raise InvalidTenant(f"{name!r:.80}", problem)

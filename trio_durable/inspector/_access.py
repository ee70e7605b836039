"""Access: the user of a request, the user's rights, and the tenants that the user may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from inspect import isawaitable
from typing import Any, Literal, TypeAlias, get_args

import attrs
from starlette.requests import Request
from starlette.responses import Response

from .._keys import tenant_problem

Right: TypeAlias = Literal["list", "state", "edit", "retry", "drop"]
"""A right in the inspector, see `Access.can`."""

RIGHTS: frozenset[Right] = frozenset(get_args(Right))
"""All rights."""


def _rights(can: Collection[Right]) -> frozenset[Right]:
    if isinstance(can, str) or not isinstance(can, Collection):
        raise ValueError(f"can must be a set of rights, such as {{'list'}}, not {can!r:.80}")
    for right in can:
        if right not in RIGHTS:
            raise ValueError(f"{right!r:.80} is no right; there are {', '.join(sorted(RIGHTS))}")
    return frozenset(can)


def _tenants(tenants: Collection[str] | None) -> frozenset[str] | None:
    if tenants is None:
        return None
    if isinstance(tenants, str) or not isinstance(tenants, Collection):
        raise ValueError(f"tenants must be a set of names or None, not {tenants!r:.80}")
    for tenant in tenants:
        problem = tenant_problem(tenant) if tenant != "" else None
        if problem is not None:
            raise ValueError(f"{tenant!r:.80} can't be the name of a tenant: {problem}")
    return frozenset(tenants)


@attrs.frozen
class Access:
    """The access of one request to the inspector, returned by the app's ``authorize``.

    ::

        Access("ada@example.com", can={"list", "state"})
        Access("root", can={"list", "state", "edit", "retry", "drop"}, tenants=None)

    Raises:
        ValueError: A right or a tenant is none.
    """

    who: str = attrs.field(validator=attrs.validators.instance_of(str))
    """The user, as the audit log names it."""
    can: frozenset[Right] = attrs.field(converter=_rights)
    """The rights: ``"list"`` for types, ids, revisions, alarms, messages and turns; ``"state"`` for
    states, payloads, arguments and texts of errors; ``"edit"`` to replace a state; ``"retry"`` and
    ``"drop"`` for dead letters. Each right but ``"list"`` needs ``"list"`` as well."""
    tenants: frozenset[str] | None = attrs.field(default=frozenset({""}), converter=_tenants)
    """The names of the tenants; ``""`` stands for objects without a tenant, and is the default.
    None stands for all, and for the figures of whole processes."""

    def sees(self, tenant: str) -> bool:
        """True if a tenant's objects may be seen."""
        return self.tenants is None or tenant in self.tenants

    def may(self, right: Right) -> bool:
        """True if the access has a right."""
        return right in self.can and "list" in self.can


Authorize: TypeAlias = Callable[
    [Request], Access | Response | Awaitable[Access | Response | None] | None
]
"""The app's decision about a request: an `Access`; a response in place of the inspector's, such as
one to a login page; or None, as if there were no inspector."""


async def decide(authorize: Authorize, request: Request) -> Access | Response | None:
    """Ask the app about a request.

    Raises:
        TypeError: It returned anything else.
        Exception: As the app raises.
    """
    found: Any = authorize(request)
    if isawaitable(found):
        found = await found
    if found is None or isinstance(found, (Access, Response)):
        return found
    raise TypeError(
        "authorize of the inspector must return an Access, a response or None, "
        f"not {type(found).__name__}"
    )

"""View: one request to a page, with its rights, and the page that answers it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

import attrs
from starlette.requests import Request

from .._clock import SystemClock
from .._keys import ObjectKey, id_problem, tenant_problem
from ._access import Access
from ._audit import Audit
from ._contents import Redactor
from ._source import Source

_MOST_BYTES = 4 * 1024 * 1024
"""Of a form: an edit has three copies of a state of 256 kB, and percent-encoding three bytes for
one."""


class Refused(Exception):
    """A request that is answered by a page about a problem."""

    def __init__(self, status: int, title: str, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        self.title = title
        self.problem = problem


class NotFound(Refused):
    """The answer about things that aren't there, and about hidden ones."""

    def __init__(self, problem: str = "There is no such page.") -> None:
        super().__init__(404, "Not found", problem)


@attrs.frozen
class Rendered:
    """A page, before it is rendered."""

    template: str
    title: str
    data: dict[str, Any]
    status: int = 200


@attrs.frozen
class View:
    """One request.

    Raises:
        NotFound: Its query names what can't be, or a tenant that mustn't be seen.
    """

    request: Request
    access: Access
    source: Source
    redactor: Redactor
    audit: Audit
    now: int = attrs.field(factory=lambda: SystemClock().now())

    def query(self, name: str) -> str:
        """A member of the query; "" if it isn't there."""
        return self.request.query_params.get(name, "")

    @property
    def tenant(self) -> str:
        """The tenant of the request; by default the first one that may be seen."""
        allowed = self.access.tenants
        named = self.request.query_params.get("tenant")
        if named is None:
            return "" if allowed is None or "" in allowed else min(allowed, default="")
        if named and tenant_problem(named) is not None:
            raise NotFound("This can't be the name of a tenant.")
        return named

    @property
    def type_name(self) -> str:
        """The type that the query names."""
        return self._name("type", "a type")

    @property
    def key(self) -> ObjectKey:
        """The object that the query names."""
        return ObjectKey(self.type_name, self._name("id", "an id"), self.tenant)

    def _name(self, member: str, kind: str) -> str:
        name = self.query(member)
        problem = id_problem(name)
        if problem is not None:
            raise NotFound(f"The address has no {member}, or one that can't be {kind}: {problem}.")
        return name

    def check_tenant(self) -> None:
        """Refuse a tenant that mustn't be seen, as one that isn't there.

        Raises:
            NotFound: It is such a one.
        """
        if not self.access.sees(self.tenant):
            raise NotFound()

    def sees(self, key: ObjectKey) -> bool:
        """True if an object may be seen."""
        return self.access.sees(key.tenant)

    def error(self, key: ObjectKey, text: str | None) -> str | None:
        """The text of an error as far as it may be seen: without the right, its class alone."""
        if text is None:
            return None
        if not self.access.may("state"):
            head = text.partition(":")[0]
            return head if head.isidentifier() else "an error"
        return self.redactor.error(key, text)

    async def form(self) -> dict[str, list[str]]:
        """The members of a form that was sent.

        Raises:
            Refused: It is too large, or none.
        """
        body = bytearray()
        async with aclosing(self.request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise Refused(413, "Too large", "This form has more than 4 MB.")
        try:
            pairs = parse_qsl(
                body.decode(), keep_blank_values=True, max_num_fields=1000, errors="strict"
            )
        except ValueError:
            raise Refused(400, "Not understood", "This is no form of the inspector.") from None
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return found

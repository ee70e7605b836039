"""The inspector of ``trio-durable ui``: served alone, to the browser of the user who runs it.

Any user of the machine, and any page in a browser on it, reaches a port of the loopback interface.
So the first segment of each path is a random token, which is in the address that the command
prints and in no cookie, since cookies don't tell ports apart. A request through a proxy is refused:
it comes from the machine for all users of the proxy.
"""

from __future__ import annotations

from secrets import compare_digest

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from ._access import RIGHTS, Access
from ._app import InspectorApp
from ._boundary import refusal, respond
from ._source import Source

_FORWARDED = ("forwarded", "via", "x-real-ip")


class Alone:
    """The ASGI app of the command.

    Args:
        source: Where the data come from.
        who: The user.
        token: The first segment of all paths.
        port: The port of the loopback interface at which it is served.
    """

    def __init__(self, source: Source, who: str, token: str, port: int) -> None:
        access = Access(who, RIGHTS, tenants=None)
        hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._inspector = InspectorApp(source, lambda _: access, hosts=hosts)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as an ASGI app."""
        if scope["type"] == "http":
            problem = forwarded_problem(Headers(scope=scope))
            if problem is not None:
                await respond(refusal(problem, 403), scope, receive, send)
                return
            first = scope["path"].split("/", 2)[1] if "/" in scope["path"] else ""
            if not compare_digest(first.encode("utf-8", "surrogatepass"), self._token):
                await respond(refusal("There is no such page.", 404), scope, receive, send)
                return
            scope = {**scope, "root_path": f"/{first}"}
        await self._inspector(scope, receive, send)


def forwarded_problem(headers: Headers) -> str | None:
    """The reason to refuse a request that a proxy has forwarded; None if none has."""
    found = [name for name in headers if name in _FORWARDED or name.startswith("x-forwarded-")]
    if not found:
        return None
    return f"A proxy has forwarded this request ({found[0]}); it isn't from this machine."

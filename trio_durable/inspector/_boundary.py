"""Boundary: everything between a request and the inspector's pages.

One ASGI app is around all pages, assets, streams and answers about missing pages. It passes a
request on only if all of these hold, and it adds the same headers to every answer:

1. It is HTTP. A websocket is closed before it is accepted.
2. The host is on the list of allowed hosts, if there is one. A page of another site whose
   name was made to resolve to this address (DNS rebinding) has that site's host.
3. The app's ``authorize`` gives it an `Access`.
4. A request of another site is a plain navigation. A request that changes something comes from a
   page of the same origin: by ``Sec-Fetch-Site``, or, from a browser without it, by an ``Origin``
   that equals the host. There are no tokens in forms, and so no sessions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from ._access import Access, Authorize, decide

SAFE = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers of every answer."""

_Serve = Callable[[Request, str, Access], Awaitable[Response]]


class Boundary:
    """The outermost ASGI app of an inspector.

    Args:
        authorize: The app's decision about each request.
        serve: Answers a request that may pass, for a page by its path.
        hosts: The values of ``Host`` that are allowed; None for all.
    """

    def __init__(
        self, authorize: Authorize, serve: _Serve, hosts: Collection[str] | None = None
    ) -> None:
        self._authorize = authorize
        self._serve = serve
        self._hosts = None if hosts is None else frozenset(map(str.lower, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as an ASGI app."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            response = await self._answer(request)
            await respond(response, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, request: Request) -> Response:
        hosts = request.headers.getlist("host")
        if self._hosts is not None and (len(hosts) != 1 or hosts[0].lower() not in self._hosts):
            return refusal("This host isn't one of the inspector's.", 421)
        access = await decide(self._authorize, request)
        if access is None:
            return refusal("There is no such page.", 404)
        if isinstance(access, Response):
            return access
        problem = cross_site_problem(request.method, request.headers)
        if problem is not None:
            return refusal(problem, 403)
        path = _path(request.scope)
        place = _without_slash(request.scope)
        if path in ("", "/") and place is not None:
            # Links are relative, so the address of the first page ends with a slash.
            return RedirectResponse(f"{place}/", 307)
        return await self._serve(request, path.removeprefix("/"), access)


def cross_site_problem(method: str, headers: Headers) -> str | None:
    """The reason to refuse a request that another site's page has made; None if there is none."""
    site, origin, host = (headers.get(name) for name in ("sec-fetch-site", "origin", "host"))
    if method not in SAFE:
        if site is not None:
            is_same = site == "same-origin"
        else:
            is_same = bool(host) and origin is not None and urlsplit(origin).netloc == host
        return None if is_same else "This request comes from another site, and changes nothing."
    if site in (None, "none", "same-origin"):
        return None
    # A link from another page may lead here. A script, picture or frame of it may not.
    is_link = headers.get("sec-fetch-mode") == "navigate"
    is_link = is_link and headers.get("sec-fetch-dest") in (None, "document")
    return None if is_link else "This request comes from another site."


def refusal(problem: str, status: int) -> Response:
    """An answer in place of a page."""
    return PlainTextResponse(f"{problem}\n", status)


async def respond(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an answer, with the headers of every answer."""
    await response(scope, receive, _with_headers(send))


def _path(scope: Scope) -> str:
    """The path below the place where the inspector is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    # Some frameworks leave the root in the path, as ASGI says, and some take it out.
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path


def _without_slash(scope: Scope) -> str | None:
    """The last segment of the whole path; None if that ends with a slash."""
    # Frameworks leave the raw path as it came.
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    last = raw.partition(b"?")[0].rpartition(b"/")[2]
    return last.decode("latin-1") or None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of an inspector that is served by itself."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return

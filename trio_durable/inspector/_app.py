"""The inspector's routes, each with its method and the right that it needs, and their dispatch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from .._clock import SystemClock
from .._errors import DurableError
from . import _dead, _objects, _overview
from ._access import Access, Authorize, Right, decide
from ._audit import Audit
from ._boundary import Boundary
from ._contents import Redact, Redactor
from ._live import events
from ._rendering import page
from ._source import Source
from ._view import NotFound, Refused, Rendered, View

_Page = Callable[[View], Awaitable[Rendered | Response]]

ASSETS = {"inspector.css": "text/css", "inspector.js": "text/javascript"}
"""The static files, with their types."""


@attrs.frozen
class Route:
    """A page, a stream, a file or a change."""

    path: str
    method: str
    right: Right | None
    """The right that it needs; None if any access may have it."""
    serve: _Page
    needs_all_tenants: bool = False
    """True if it is about whole processes."""


class InspectorApp:
    """The pages of one source, behind one boundary.

    Args:
        source: Where the data come from.
        authorize: The app's decision about each request.
        redact: The app's redaction, if it has one.
        hosts: The values of ``Host`` that are allowed; None for all.
    """

    def __init__(
        self,
        source: Source,
        authorize: Authorize,
        redact: Redact | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        self._source = source
        self._authorize = authorize
        self._redactor = Redactor(redact)
        self._audit = Audit()
        self._boundary = Boundary(authorize, self._serve, hosts)
        self.routes = {(route.path, route.method): route for route in self._routes()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection, as an ASGI app."""
        await self._boundary(scope, receive, send)

    def _routes(self) -> list[Route]:
        overview = partial(_overview.overview, rates=_overview.Rates())
        pages = [
            Route("", "GET", "list", overview),
            Route("type", "GET", "list", _objects.of_type),
            Route("object", "GET", "list", _objects.one_object),
            Route("waiting", "GET", "list", _overview.waiting),
            Route("turns", "GET", "list", _overview.turns),
            Route("dead", "GET", "list", _dead.dead_letters),
            Route("nodes", "GET", "list", _overview.nodes, needs_all_tenants=True),
            Route("audit", "GET", "list", _overview.audit),
        ]
        return [
            *pages,
            *(
                attrs.evolve(each, path=f"{each.path}.live", serve=partial(self._stream, each))
                for each in pages
            ),
            Route("find", "GET", "list", _objects.find),
            Route("tenants", "GET", "list", _overview.tenants),
            Route("download", "GET", "state", _objects.download),
            Route("edit", "GET", "edit", _objects.edit_form),
            Route("edit", "POST", "edit", _objects.edit),
            Route("retry", "POST", "retry", _dead.retry),
            Route("drop", "POST", "drop", _dead.drop),
            *(Route(name, "GET", None, partial(_asset, name)) for name in ASSETS),
        ]

    # --- dispatch --------------------------------------------------------------------------------

    async def _serve(self, request: Request, path: str, access: Access) -> Response:
        """Answer a request that the boundary has let in."""
        view = View(request, access, self._source, self._redactor, self._audit)
        route: Route | None = None
        try:
            route = self._route(view, path)
            made = await route.serve(view)
            return made if isinstance(made, Response) else self._page(view, route, made)
        except Refused as refused:
            problem = Rendered(
                "problem.html", refused.title, {"problem": refused.problem}, refused.status
            )
        except DurableError as error:
            # Its text may quote a state, so it is for the log of the app that raised it.
            name = type(error).__name__
            text = str(error) if access.may("state") and not self._redactor.redacts else ""
            problem = Rendered("problem.html", "Not available", {"problem": f"{name}. {text}"}, 503)
        return self._page(view, None, problem)

    def _route(self, view: View, path: str) -> Route:
        """The route of a request.

        Raises:
            Refused: There is none, or the access lacks its right.
        """
        method = "GET" if view.request.method == "HEAD" else view.request.method
        route = self.routes.get((path, method))
        if route is None:
            if any(known == path for known, _ in self.routes):
                raise Refused(405, "Not possible", "This page has no such method.")
            raise NotFound()
        if route.needs_all_tenants and view.access.tenants is not None:
            raise NotFound()
        if route.right is not None and not view.access.may(route.right):
            raise Refused(403, "Not allowed", f"This needs the right “{route.right}”.")
        return route

    def _page(self, view: View, route: Route | None, rendered: Rendered) -> Response:
        data = self._data(view, route, rendered)
        return HTMLResponse(page(rendered.template, data), rendered.status)

    def _data(self, view: View, route: Route | None, rendered: Rendered) -> dict[str, Any]:
        live = None
        if route is not None and (f"{route.path}.live", "GET") in self.routes:
            query = view.request.url.query
            live = f"{route.path}.live" + (f"?{query}" if query else "")
        # A request with a bad tenant has a page about that, too.
        tenant = ""
        with suppress(NotFound):
            tenant = view.tenant
        return {
            "title": rendered.title,
            "view": view,
            "tenant": tenant,
            "path": "" if route is None else route.path,
            "location": self._source.location,
            "is_running": self._source.is_running,
            "live": live,
            "now": view.now,
            **rendered.data,
        }

    # --- streams ---------------------------------------------------------------------------------

    async def _stream(self, route: Route, view: View) -> Response:
        """The stream of a page's live parts."""
        if view.request.method == "HEAD":
            return Response(media_type="text/event-stream")
        make: Callable[[View], Awaitable[Any]] = route.serve
        if route.path == "object":
            make = partial(_objects.one_object, watched=_objects.Watched())
        request = view.request
        body = events(
            make,
            lambda each, rendered: self._data(each, route, rendered),
            partial(self._renewed, route, request),
            self._source.wait,
        )
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(_quiet(body), media_type="text/event-stream", headers=headers)

    async def _renewed(self, route: Route, request: Request) -> View | None:
        """The request of a stream with the access that its user has now."""
        access = await decide(self._authorize, request)
        if not isinstance(access, Access):
            return None
        view = View(request, access, self._source, self._redactor, self._audit, SystemClock().now())
        try:
            self._route(view, f"{route.path}.live")
        except Refused:
            return None
        return view


async def _quiet(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream that ends when the runtime does; the browser then asks again."""
    with suppress(DurableError):
        async for each in body:
            yield each


async def _asset(name: str, _: View) -> Response:
    content = (files("trio_durable.inspector") / "static" / name).read_bytes()
    return Response(content, media_type=f"{ASSETS[name]}; charset=utf-8")

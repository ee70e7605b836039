"""Inspector: pages about a running app's objects, for its developers and operators.

`inspector` makes an ASGI app for a `DurableRuntime`, to be mounted into a web app; the command
``trio-durable ui`` serves the same pages alone. It needs the extra ``inspector``.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp

from .._api.runtime import DurableRuntime
from ._access import Access, Authorize, Right
from ._app import InspectorApp
from ._contents import Content, Redact
from ._history import FinishedTurn, TurnHistory
from ._runtime_source import RuntimeSource

__all__ = [
    "Access",
    "Content",
    "FinishedTurn",
    "Right",
    "TurnHistory",
    "inspector",
]


def inspector(
    runtime: DurableRuntime,
    *,
    authorize: Authorize,
    redact: Redact | None = None,
    hosts: Collection[str] | None = None,
) -> ASGIApp:
    """The inspector of a runtime, as an ASGI app to be mounted into a web app.

    ::

        async def authorize(request: Request) -> Access | None:
            user = await signed_in(request)
            return Access(user.email, can={"list", "state"}) if user and user.is_staff else None


        app.mount("/inspector", inspector(runtime, authorize=authorize))

    Made before the runtime opens, it keeps the latest turns in memory, see `TurnHistory`. That
    takes about two microseconds of each turn.

    Args:
        runtime: The runtime, open or not. Pages need it open, and its event loop.
        authorize: Decides about each request, those of streams each second. It returns an `Access`;
            a response to be sent instead, such as a redirect to a login page; or None, which is
            answered as a missing page. It may be a coroutine function.
        redact: Returns what is shown of each `Content`: its value, or another one. It is applied
            before anything leaves the process: to pages, differences, downloads, streams and texts
            of errors.
        hosts: The values of the header ``Host`` that are allowed, such as ``{"app.example.com"}``;
            None for all. Name them where ``authorize`` trusts a network.

    Raises:
        TypeError: ``authorize`` or ``redact`` can't be called; from a request, if ``authorize``
            returns anything else.
    """
    if not callable(authorize):
        raise TypeError(f"authorize must be a function of the request, not {authorize!r:.80}")
    if redact is not None and not callable(redact):
        raise TypeError(f"redact must be a function of a Content or None, not {redact!r:.80}")
    return InspectorApp(RuntimeSource(runtime), authorize, redact, hosts)

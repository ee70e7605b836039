"""``trio-durable ui``."""

from __future__ import annotations

import getpass
import logging
import secrets
import socket
from typing import TYPE_CHECKING, Any, cast

import anyio
import click

from ...storage import Storage
from ..errors import CommandError
from ..options import storage_argument
from ..output import printable
from ..storage.open import resolve_storage

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PACKAGES = {"hypercorn", "jinja2", "markupsafe", "starlette"}


@click.command()
@storage_argument
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port; by default any that is free."
)
def ui(storage: str, port: int) -> None:
    """Open the inspector of an app in your browser.

    Serves pages about the objects of a storage to this machine, at the address
    that is printed: types, states, alarms, messages, dead letters, turns. Only the
    user who knows the address can open them. While an app has the storage open,
    they show what it does, and changes are made by its processes. Otherwise they
    are read only. Control-C ends it.

    \b
    Examples:
      trio-durable ui app.db
    """
    store = resolve_storage(storage, option="STORAGE")
    try:
        anyio.run(_serve, store, port, backend="trio")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise CommandError(
            f"the inspector needs {package}, which isn't installed; run: "
            "pip install 'trio-durable[cli,inspector]'"
        ) from None


async def _serve(storage: Storage, port: int) -> None:
    # Imported here, since they are of an extra.
    from ...inspector._alone import Alone
    from ..storage.inspected import inspected

    _log_changes()
    token = secrets.token_urlsafe(24)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(f"--port {port}: {error.strerror}; choose another one") from error
        port = listening.getsockname()[1]
        listening.listen()
        async with inspected(storage) as source:
            app = Alone(source, getpass.getuser(), token, port)
            state = "" if source.is_running else " No app has it open, so it is read only."
            click.echo(f"Inspector of {printable(source.location)}.{state}")
            click.echo(f"http://127.0.0.1:{port}/{token}/")
            await _run(app, listening)


async def _run(app: ASGIApp, listening: socket.socket) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    # The socket is hypercorn's from now on.
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = None
    config.accesslog = None
    config.graceful_timeout = 1
    config.include_server_header = False
    # Its types of messages are narrower than those of ASGI.
    await serve(cast("Any", app), config, mode="asgi")


def _log_changes() -> None:
    """Let each change be a line on standard error."""
    audit = logging.getLogger("trio_durable.audit")
    audit.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    audit.addHandler(handler)

"""``trio-durable serve``."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import anyio
import click

from ..._api.durable_object import DurableObject
from ..._api.runtime import DurableRuntime
from ..._errors import RuntimeClosed
from ...storage import Storage
from ..errors import CommandError
from ..options import storage_argument
from ..output import quantity
from ..probes import probe
from ..storage.app_classes import AppClasses, app_option
from ..storage.open import resolve_storage

_PLACE = "FILE or ADDRESS"


@click.command()
@storage_argument
@app_option(required=True, help="Module with the classes.")
@click.option(
    "--backend",
    type=click.Choice(["trio", "asyncio"]),
    default="trio",
    show_default=True,
    help="Event loop of the handlers.",
)
@click.option("--ready", metavar=_PLACE, help="Exists while objects are served.")
@click.option("--live", metavar=_PLACE, help="Exists while the event loop turns.")
def serve(
    storage: str, apps: tuple[str, ...], backend: str, ready: str | None, live: str | None
) -> None:
    """Serve the objects of an app, in a process of its own.

    The processes of the app then open their runtimes with
    cluster=Cluster(serve=False), and call this one. Several may run: one has the
    objects, and the others take over when it ends. SIGTERM and Control-C let
    running turns finish first.

    A probe is a file, whose time is renewed each second, or a socket, such as
    tcp://127.0.0.1:8001 or unix:///run/app.sock, which accepts connections.

    \b
    Examples:
      trio-durable serve app.db --app shop
      trio-durable serve app.db --app shop.objects:Cart --ready /run/shop/ready
    """
    classes = [definition.cls for definition in AppClasses(apps)]
    if not classes:
        raise CommandError("--app has no durable object; check the name of the module")
    store = resolve_storage(storage, option="STORAGE")
    anyio.run(_serve, store, classes, ready, live, backend=backend)


async def _serve(
    store: Storage, classes: Sequence[type[Any]], ready: str | None, live: str | None
) -> None:
    served: Sequence[type[DurableObject]] = classes
    try:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with (
                probe(live),
                DurableRuntime(store, objects=served, cluster=True) as runtime,
                probe(ready),
                anyio.create_task_group() as tasks,
            ):

                async def end() -> None:
                    await runtime.closed()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(end)
                click.echo(f"{store.location}: serving {quantity(len(served), 'type')}")
                async for _ in signals:
                    tasks.cancel_scope.cancel()
                    break
    except RuntimeClosed as error:
        raise CommandError(str(error)) from error

"""``trio-durable serve``."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import Any

import anyio
import click

from ..._api.runtime import DurableRuntime
from ..._cluster.settings import Cluster
from ..cluster_options import cluster_options
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
@cluster_options
def serve(
    storage: str,
    apps: tuple[str, ...],
    backend: str,
    ready: str | None,
    live: str | None,
    cluster: Cluster,
) -> None:
    """Serve the objects of an app, in a process of its own.

    The processes of the app then open their runtimes with
    cluster=Cluster(serve=False), and call this one. Several may run. On an SQLite
    file one has the objects, and the others take over when it ends; on PostgreSQL
    they divide the objects. SIGTERM and Control-C let running turns finish, and
    give the objects to the others.

    An address is tcp://HOST:PORT or unix:///PATH. A probe is a file, whose time is
    renewed each second, or an address that accepts connections.

    \b
    Examples:
      trio-durable serve app.db --app shop
      trio-durable serve app.db --app shop.objects:Cart --ready /run/shop/ready
      trio-durable serve postgresql://app@db.example.com/app --app shop
    """
    classes: list[type[Any]] = [definition.cls for definition in AppClasses(apps)]
    if not classes:
        raise CommandError("--app has no durable object; check the name of the module")
    store = resolve_storage(storage, option="STORAGE")
    try:
        runtime = DurableRuntime(store, objects=classes, cluster=cluster)
    except ValueError as error:
        raise CommandError(str(error)) from error
    greeting = f"{store.location}: serving {quantity(len(classes), 'type')}"
    anyio.run(_serve, runtime, greeting, ready, live, backend=backend)


async def _serve(
    runtime: DurableRuntime, greeting: str, ready: str | None, live: str | None
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with AsyncExitStack() as stack:
            try:
                for each in (probe(live), runtime, probe(ready)):
                    await stack.enter_async_context(each)
            except ValueError as error:  # an address can't be used
                raise CommandError(str(error)) from error
            async with anyio.create_task_group() as tasks:

                async def end() -> None:
                    await runtime.closed()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(end)
                click.echo(greeting)
                async for _ in signals:
                    tasks.cancel_scope.cancel()
                    break

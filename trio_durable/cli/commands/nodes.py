"""``trio-durable nodes``."""

from __future__ import annotations

import anyio
import attrs
import click

from ..._api.runtime import DurableRuntime
from ..._cluster.nodes import Node
from ..._cluster.settings import Cluster
from ...storage import Storage
from ..options import json_option, storage_argument
from ..output import add_row, console, new_table, print_json
from ..storage.open import resolve_storage


@click.command()
@storage_argument
@json_option
def nodes(storage: str, as_json: bool) -> None:
    """List the runtimes that share a storage.

    Those that have objects come first.

    \b
    Examples:
      trio-durable nodes app.db
      trio-durable nodes app.db --json
    """
    table = new_table("node", "host", ">pid", "release", "serves", ">shards")
    for node in anyio.run(_nodes, resolve_storage(storage, option="STORAGE"), backend="trio"):
        if as_json:
            print_json(attrs.asdict(node))
        serves = "yes" if node.serves else "no"
        add_row(table, node.node_id, node.host, f"{node.pid}", node.release, serves, node.shards)
    if not as_json:
        console().print(table)


async def _nodes(store: Storage) -> list[Node]:
    async with DurableRuntime(store, objects=[], cluster=Cluster(serve=False)) as runtime:
        me = runtime.node_id
        return [node for node in await runtime.list_nodes() if node.node_id != me]

"""``trio-durable nodes``."""

from __future__ import annotations

import anyio
import attrs
import click

from ..._cluster.nodes import Node, by_shards, node_of_member
from ...storage import SharedStorage, Storage
from ..options import output_option, storage_argument
from ..output import Output, add_row, console, new_table, print_rows
from ..storage.open import resolve_storage
from ..storage.running import running_app


@click.command()
@storage_argument
@output_option(json_is="jsonl")
def nodes(storage: str, output: Output) -> None:
    """List the runtimes that share a storage.

    Owners of objects come first. On an SQLite file the process with the
    objects lists them. On PostgreSQL the database does, which works while no
    process serves, and shows how long ago each one renewed its lease.

    \b
    Examples:
      trio-durable nodes app.db
      trio-durable nodes postgresql://app@db.example.com/app --json
    """
    found = _nodes(resolve_storage(storage, option="STORAGE"))
    if output != "table":
        columns = [field.name for field in attrs.fields(Node)]
        print_rows(output, columns, map(attrs.asdict, found))
        return
    if not found:
        click.echo("No runtime is open.", err=True)
        return
    table = new_table(
        "node", "host", ">pid", "release", "group", "serves", ">shards", ">last renewal"
    )
    for node in found:
        serves = "leaving" if node.is_leaving else "yes" if node.serves else "no"
        age = "" if node.age is None else f"{node.age:.1f} s ago"
        names = (node.node_id, node.host, node.pid, node.release, node.group or "")
        add_row(table, *names, serves, node.shards, age)
    console().print(table)


def _nodes(store: Storage) -> list[Node]:
    if isinstance(store, SharedStorage):
        rows = store.list_members()
        return by_shards(node_of_member(row.member, row.group, row.shards) for row in rows)
    return anyio.run(_ask, store, backend="trio")


async def _ask(store: Storage) -> list[Node]:
    async with running_app(store) as app:
        me = app.runtime.node_id
        return [node for node in await app.runtime.list_nodes() if node.node_id != me]

"""Members of a cluster: the runtimes that a command can ask to change what they own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..._api.durable_object import DurableObject
from ..._api.runtime import DurableRuntime
from ..._cluster.node_note import UnreadableNote, note_beside, read_note
from ..._cluster.settings import Cluster, Command
from ...storage import SharedStorage, SQLiteStorage, Storage
from ..cluster_options import client_group, client_tls
from ..errors import CommandError

PATIENCE_SECONDS = 30.0
"""How long a command waits for an answer, unless it says otherwise."""


def client(
    storage: Storage,
    cluster: Cluster,
    *,
    objects: Iterable[type[DurableObject]] = (),
    timeout: float | None = None,
) -> DurableRuntime:
    """A runtime that only calls the processes that have a storage open.

    Args:
        storage: The storage.
        cluster: See `cluster_of`.
        objects: The classes whose handles are used.
        timeout: Seconds that a request may take; None for `PATIENCE_SECONDS`.
    """
    seconds = PATIENCE_SECONDS if timeout is None else timeout
    return DurableRuntime(storage, objects=objects, cluster=cluster, call_timeout=seconds)


def cluster_of(storage: Storage, owner: int | None) -> Command | None:
    """The settings of a client of the cluster that has a storage.

    None if the runtime that has it isn't in a cluster.

    Args:
        storage: The storage.
        owner: The process that has it, if that is known.

    Raises:
        CommandError: The environment lacks a setting, or has one that doesn't fit.
        StorageUnavailable: The storage can't be read.
    """
    if isinstance(storage, SQLiteStorage):
        return Command() if _is_shared(Path(storage.location), owner) else None
    return _cluster_of_members(storage) if isinstance(storage, SharedStorage) else None


def _is_shared(path: Path, owner: int | None) -> bool:
    try:
        note = read_note(note_beside(path))
    except UnreadableNote as error:
        raise CommandError(f"the runtime that has {path} can't be asked: {error}") from error
    return note is not None and owner in (None, note.pid)  # else it is that of a former owner


def _cluster_of_members(storage: SharedStorage) -> Command | None:
    found = storage.list_members()
    groups = {row.group for row in found if row.group is not None and row.member.serves}
    if not groups:
        return None
    return Command(group=_chosen(sorted(groups)), tls=client_tls())


def _chosen(groups: Sequence[str]) -> str:
    group = client_group()
    if group is not None and group not in groups:
        raise CommandError(
            f"no process of TRIO_DURABLE_GROUP={group} is open, but of {', '.join(groups)}"
        )
    if group is None and len(groups) > 1:
        raise CommandError(
            f"processes of several groups are open, {', '.join(groups)}; name the one that has "
            "these objects by TRIO_DURABLE_GROUP"
        )
    return group or groups[0]

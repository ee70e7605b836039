"""Readers and writers for the storage that ``--storage`` and ``--tenant`` name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..._api.tenant import check_tenant
from ..._browsing import has_tenant
from ..._keys import AlarmKey, ObjectKey, id_problem
from ...storage import Durability, MemoryStorage, Reader, Storage, StorageFault, Writer
from ...storage._urls import storage_at
from ..command_line import command_line
from ..errors import CommandError


def resolve_storage(
    name: str, durability: Durability = "full", *, option: str = "--storage"
) -> Storage:
    """The storage at a path or URL. Nothing is opened yet.

    Args:
        name: The path or URL.
        durability: See `SQLiteStorage`.
        option: The option or argument that ``name`` was given to, for messages.

    Raises:
        CommandError: The path or URL is invalid.
    """
    try:
        storage = storage_at(name, durability)
    except (ValueError, ModuleNotFoundError) as error:
        raise CommandError(f"{option}: {error}") from None
    if isinstance(storage, MemoryStorage):
        raise CommandError(f"{option}: objects in memory end with their process; name a file")
    return storage


@contextmanager
def open_reader(storage: Storage, tenant: str | None = None) -> Iterator[Reader]:
    """Open a reader; if a tenant is named, it must exist.

    Raises:
        InvalidTenant: ``tenant`` is not a valid name.
        CommandError: There is no such tenant, or the storage can't be read.
        StorageUnavailable: There is no storage at this location.
    """
    if tenant is not None:
        check_tenant(tenant)
    with _faults_as_errors(storage), closing(storage.open_reader()) as reader:
        if tenant is not None and not has_tenant(reader, tenant):
            raise CommandError(
                f"there is no tenant {tenant} in {storage.location}; "
                f"`{command_line('tenants', storage=storage.location)}` lists all tenants"
            )
        yield reader


@contextmanager
def open_writer(storage: Storage) -> Iterator[Writer]:
    """Open the writer, which excludes runtimes and other writers.

    Raises:
        CommandError: The storage can't be written.
        StorageUnavailable: It can't be opened; `StorageInUse` if a runtime has it open.
    """
    with _faults_as_errors(storage), closing(storage.open_writer()) as writer:
        yield writer


@contextmanager
def _faults_as_errors(storage: Storage) -> Iterator[None]:
    try:
        yield
    except StorageFault as fault:
        raise CommandError(f"can't use {storage.location}: {fault}") from fault


def check_type_name(name: str) -> None:
    """Check the name of a type.

    Raises:
        CommandError: It is invalid.
    """
    _check("a type", name)


def object_key(type_name: str, object_id: str, tenant: str | None) -> ObjectKey:
    """The key of an object.

    Raises:
        CommandError: A name is invalid.
    """
    check_type_name(type_name)
    _check("an id", object_id)
    return ObjectKey(type_name, object_id, tenant or "")


def alarm_key(type_name: str, object_id: str, name: str, tenant: str | None) -> AlarmKey:
    """The key of an alarm.

    Raises:
        CommandError: A name is invalid.
    """
    _check("the name of an alarm", name)
    return object_key(type_name, object_id, tenant).alarm(name)


def _check(kind: str, name: str) -> None:
    problem = id_problem(name)
    if problem is not None:
        raise CommandError(f"{name!r:.80} can't be {kind}: {problem}")

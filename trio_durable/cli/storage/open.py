"""From what ``--storage`` and ``--tenant`` say to the sides of a storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..._api.tenant import check_tenant
from ..._keys import AlarmKey, ObjectKey, id_problem
from ...storage import Durability, MemoryStorage, Reader, Storage, StorageFault, Writer
from ...storage._urls import storage_at
from ..errors import CommandError
from .paging import has_tenant


def resolve_storage(
    name: str, durability: Durability = "full", *, what: str = "--storage"
) -> Storage:
    """The storage at a path or URL; nothing is opened yet.

    Args:
        name: The path or URL.
        durability: See `SQLiteStorage`.
        what: What the user has named by it.

    Raises:
        Refusal: There can't be one.
    """
    try:
        storage = storage_at(name, durability)
    except (ValueError, ModuleNotFoundError) as error:
        raise CommandError(f"{what}: {error}") from None
    if isinstance(storage, MemoryStorage):
        raise CommandError(f"{what}: objects in memory are gone with their process; name a file")
    return storage


@contextmanager
def open_reader(storage: Storage, tenant: str | None = None) -> Iterator[Reader]:
    """The reading side, for a tenant that has to be there if one is named.

    Raises:
        InvalidTenant: None can have that name.
        Refusal: There is no such tenant, or something can't be read.
        StorageUnavailable: There is nothing to read.
    """
    if tenant is not None:
        check_tenant(tenant)
    with _faults(storage), closing(storage.open_reader()) as reader:
        if tenant is not None and not has_tenant(reader, tenant):
            raise CommandError(
                f"there is no tenant {tenant} in {storage.location}; `trio-durable tenants` lists "
                "those that there are"
            )
        yield reader


@contextmanager
def open_writer(storage: Storage) -> Iterator[Writer]:
    """The writing side.

    Raises:
        Refusal: Something can't be written.
        StorageUnavailable: It can't be opened; most of all, a runtime has it.
    """
    with _faults(storage), closing(storage.open_writer()) as writer:
        yield writer


@contextmanager
def _faults(storage: Storage) -> Iterator[None]:
    try:
        yield
    except StorageFault as fault:
        raise CommandError(f"can't use {storage.location}: {fault}") from fault


def check_type_name(name: str) -> None:
    """Check the name of a type.

    Raises:
        Refusal: None can be called that.
    """
    _check("a type", name)


def object_key(type_name: str, object_id: str, tenant: str | None) -> ObjectKey:
    """The key of what a user names.

    Raises:
        Refusal: Nothing can be called that.
    """
    check_type_name(type_name)
    _check("an id", object_id)
    return ObjectKey(type_name, object_id, tenant or "")


def alarm_key(type_name: str, object_id: str, name: str, tenant: str | None) -> AlarmKey:
    """The key of an alarm that a user names.

    Raises:
        Refusal: None can be called that.
    """
    _check("the name of an alarm", name)
    return object_key(type_name, object_id, tenant).alarm(name)


def _check(what: str, name: str) -> None:
    problem = id_problem(name)
    if problem is not None:
        raise CommandError(f"{name!r:.80} can't be {what}: {problem}")


def object_not_found(key: ObjectKey) -> CommandError:
    """What to raise where a user names an object that isn't there."""
    of = f" -t {key.tenant}" if key.tenant else ""
    return CommandError(
        f"nothing is stored of {key}; `trio-durable ls{of} {key.type_name}` lists what is"
    )

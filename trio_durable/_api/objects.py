"""What can be done with objects from outside: what a runtime and its tenants have in common."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from .._activations.directory import Directory
from .._activations.info import ActivationInfo
from .._activations.services import Services
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.input import check_name, due_time, encoded_payload
from .._durations import UNSET, Duration, Unset, optional_seconds
from .._errors import ObjectNotRunning, RuntimeClosed, StorageUnavailable, WrongEventLoop
from .._eventloop.runner import Runner
from .._keys import AlarmKey, ObjectKey
from .._persistence.group_commit import GroupCommit
from ..scheduler import Scheduler
from ..storage import NewAlarm, Reader, Storage, StorageFault
from .durable_object import DurableObject
from .handle import Handle, handle_class
from .registry import Catalogue

if TYPE_CHECKING:
    from .runtime import DurableRuntime

T = TypeVar("T", bound=DurableObject)
R = TypeVar("R")

_MOST = 1_000_000


class Objects(ABC):
    """Finds objects, calls them, and looks after their state and alarms.

    A `DurableRuntime` does so for the objects that belong to no tenant, and a `Tenant` for its own.

    A type is a class or its stored name, an id any str of 1 to 512 bytes without NUL. All but
    `root` need the runtime open, and what is awaited belongs in its event loop.

    Raises:
        UnknownObjectType: No class goes by that name.
        InvalidObjectId: It can't be an id.
        RuntimeClosed: The runtime isn't open, or closed meanwhile.
        WrongEventLoop: It is used from another thread or event loop.
        TenantDropped: The tenant is being dropped.
        Overloaded: A call, or a change from outside, would hardly be done in time. It wasn't run.
    """

    _tenant: str
    _storage: Storage
    _catalogue: Catalogue
    _services: Services | None
    _group_commit: GroupCommit
    _reader_runner: Runner
    _reader: Reader
    _scheduler: Scheduler
    _handle_classes: dict[Directory, type[Handle]]

    @property
    @abstractmethod
    def root(self) -> DurableRuntime:
        """The runtime that all of this is in; a runtime is its own."""

    # --- objects and calls -----------------------------------------------------------------------

    @overload
    def get(
        self, object_type: type[T], object_id: str, /, *, timeout: Duration | Unset | None = UNSET
    ) -> T: ...
    @overload
    def get(
        self, object_type: str, object_id: str, /, *, timeout: Duration | Unset | None = UNSET
    ) -> Handle: ...
    def get(
        self,
        object_type: type[T] | str,
        object_id: str,
        /,
        *,
        timeout: Duration | Unset | None = UNSET,
    ) -> T | Handle:
        """A handle of one object, whose handlers can be awaited. Touches nothing.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id, any str of 1 to 512 bytes without NUL.
            timeout: How long each call waits for its reply; None for ever.

        Raises:
            UnknownObjectType: No class goes by that name.
            InvalidObjectId: It can't be an id.
            RuntimeClosed: The runtime isn't open.
        """
        self._open()
        directory, address = self._locate(object_type, object_id)
        limit = (
            directory.timeout
            if isinstance(timeout, Unset)
            else optional_seconds(timeout, "timeout")
        )
        kind = self._handle_classes.get(directory)
        if kind is None:
            kind = self._handle_classes[directory] = handle_class(directory.definition)
        # What type checkers are told a handle is: see _handle.
        return cast("T", kind(directory, address, limit))

    async def call(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        handler_name: str,
        /,
        *args: object,
        **kwargs: object,
    ) -> object:
        """Call a handler by name.

        Raises:
            UnknownObjectType: No class goes by that name.
            UnknownHandler: The class has no such handler.
            InvalidObjectId: It can't be an id.
            CallTimeout: No reply within the class's or runtime's timeout.
            PersistenceError: What the turn changed could not be made durable.
            Exception: What the handler raised, after its turn was rolled back.
        """
        directory, address = self._locate(object_type, object_id)
        handler = directory.handler(handler_name)
        return await directory.call(address, handler, args, kwargs, directory.timeout)

    def _dispatch(
        self,
        cls: type,
        object_id: str,
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Coroutine[Any, Any, object]:
        """See `_ambient.Dispatcher`."""
        directory, address = self._locate(cls, object_id)
        return directory.call(address, directory.handler(handler), args, kwargs, directory.timeout)

    async def ensure_started(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo:
        """Activate an object if it isn't running: load it and run its after_load.

        Raises:
            ActivationFailed: after_load raised.
            StateDecodeError: What is stored can't be read.
            PersistenceError: It could not be loaded, or what after_load did not be stored.
        """
        directory, address = self._locate(object_type, object_id)
        await directory.operate(
            address, "ensure_started", lambda activation: None, needs_instance=True
        )
        found = directory.find(address)
        if found is not None:
            return found.info()
        # Already gone again, in the moment between; it did start.
        return ActivationInfo(directory.key(address), "hibernated", 0, 0)

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        """What a running object is about, or None if it isn't in memory."""
        self._open()
        directory, address = self._locate(object_type, object_id)
        activation = directory.find(address)
        return None if activation is None else activation.info()

    async def stop(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Let an object leave memory, behind the calls queued so far. Fine if it isn't running."""
        directory, address = self._locate(object_type, object_id)
        if directory.find(address) is not None:
            await directory.operate(
                address, "stop", lambda activation: activation.stop(), saves=False
            )

    def count_objects(self) -> int:
        """How many objects are in memory, hibernated ones included."""
        return self._open().residency.count

    # --- state from outside ----------------------------------------------------------------------

    @overload
    async def get_state(self, object_type: type[T], object_id: str, /) -> T: ...
    @overload
    async def get_state(self, object_type: str, object_id: str, /) -> DurableObject: ...
    async def get_state(self, object_type: type[T] | str, object_id: str, /) -> T | DurableObject:
        """A detached copy of a running object's state, in turn behind the calls queued so far.

        Raises:
            ObjectNotRunning: It isn't in memory.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
        """
        directory, address = self._locate(object_type, object_id)
        if directory.find(address) is None:
            raise ObjectNotRunning(directory.key(address), "get_state")
        return cast(
            "T",
            await directory.operate(
                address, "get_state", lambda activation: activation.read_state(), saves=False
            ),
        )

    async def put_state(self, object_type: type[T] | str, object_id: str, instance: T, /) -> None:
        """Replace an object's state, stored or not, in turn behind the calls queued so far.

        Raises:
            TypeError: ``instance`` is of another class.
            StateEncodeError: The state can't be stored.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        directory, address = self._locate(object_type, object_id)
        cls = directory.definition.cls
        if type(instance) is not cls:
            raise TypeError(
                f"put_state of a {cls.__qualname__} takes an instance of it, "
                f"not {type(instance).__qualname__}"
            )
        key = directory.key(address)
        state = directory.codec.encode(key, instance)
        directory.codec.check_size(key, state)
        await directory.operate(
            address, "put_state", lambda activation: activation.write_state(state)
        )

    async def exists(self, object_type: type[DurableObject] | str, object_id: str, /) -> bool:
        """Whether anything is stored of an object, in turn behind the calls queued so far.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            StorageUnavailable: It could not be looked up.
        """
        directory, address = self._locate(object_type, object_id)
        if directory.find(address) is not None:
            return bool(
                await directory.operate(
                    address, "exists", lambda activation: activation.is_stored(), saves=False
                )
            )
        key = directory.key(address)
        rows = await self._read(lambda reader: reader.load([key]))
        return rows[0] is not None

    async def delete(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Delete what is stored of an object, behind the calls queued so far. Fine if nothing is.

        The object starts from its defaults again.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        directory, address = self._locate(object_type, object_id)
        await directory.operate(address, "delete", lambda activation: activation.delete())

    async def list_objects(
        self,
        object_type: type[DurableObject] | str,
        /,
        *,
        after: str | None = None,
        limit: int = 100,
    ) -> list[str]:
        """The ids of the stored objects of a type, in the order of their UTF-8 bytes.

        Args:
            object_type: The class, or its stored name.
            after: Only ids behind this one; the last of a page gives the next page.
            limit: At most so many; a million counts as no limit.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: They could not be looked up.
        """
        directory = self._catalogue.directory(object_type)
        if after:
            directory.address(after, self._tenant)
        name, limit, tenant = directory.definition.name, checked_limit(limit), self._tenant
        return await self._read(lambda reader: reader.list_ids(name, after, limit, tenant))

    # --- alarms from outside ---------------------------------------------------------------------

    async def schedule_alarm(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        name: str,
        /,
        *,
        after: Duration | None = None,
        at: datetime | None = None,
        payload: object = None,
    ) -> None:
        """Set an alarm of an object, in the place of any that has the same name.

        The object needn't run for it. Not for the object's own turns, which have
        ``self.ctx.schedule_alarm()``.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id.
            name: Any str of 1 to 512 bytes without NUL.
            after: How long from now it is due.
            at: The instant it is due, if not ``after``; what is past is due at once.
            payload: Plain JSON, or an instance of an attrs class, a dataclass or another type that
                state may have; see `Alarm.payload_as`.

        Raises:
            InvalidAlarm: It can't be set like this.
            CallTimeout: It wasn't durable within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        key = self._key(object_type, object_id)
        due_at = due_time(key, name, after, at, self._open().clock.now())
        new = NewAlarm(due_at, encoded_payload(key, name, payload))
        await self._scheduler.schedule(key, str.__str__(name), new)

    async def cancel_alarm(
        self, object_type: type[DurableObject] | str, object_id: str, name: str, /
    ) -> None:
        """Cancel an alarm, a dead letter too. Fine if there is none.

        Raises:
            InvalidAlarm: There can't be such a name.
            CallTimeout: It wasn't durable within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        key = self._key(object_type, object_id)
        check_name(key, name)
        await self._scheduler.cancel(key, str.__str__(name))

    async def cancel_all_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> None:
        """Cancel all alarms of an object, dead letters too.

        Raises:
            CallTimeout: It wasn't durable within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        key = self._key(object_type, object_id)
        await self._scheduler.cancel_all(key)

    async def list_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> list[Alarm]:
        """The alarms of an object, by ``due_at``; without dead letters.

        Raises:
            InvalidAlarm: What is stored of one can't be read.
            StorageUnavailable: They could not be looked up.
        """
        key = self._key(object_type, object_id)
        self._check_loop()
        with self._storage_errors():
            stored = await self._scheduler.list(key)
        return [alarm_of(each, each.failures + 1) for each in stored]

    async def list_dead_letters(
        self,
        object_type: type[DurableObject] | str,
        /,
        *,
        after: Alarm | None = None,
        limit: int = 100,
    ) -> list[Alarm]:
        """The alarms of a type whose attempts are used up, by the ids of their objects.

        Args:
            object_type: The class, or its stored name.
            after: Only those behind this one; the last of a page gives the next page.
            limit: At most so many; a million counts as no limit.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: They could not be looked up.
        """
        type_name = self._catalogue.directory(object_type).definition.name
        last = None if after is None else AlarmKey(type_name, after.key.object_id, after.name)
        limit, tenant = checked_limit(limit), self._tenant
        self._check_loop()
        with self._storage_errors():
            dead = await self._scheduler.dead_letters(type_name, last, limit, tenant)
        return [alarm_of(each, each.failures) for each in dead]

    async def retry_alarm(
        self, object_type: type[DurableObject] | str, object_id: str, name: str, /
    ) -> bool:
        """Let a dead letter be due at once, with all its attempts; whether there was one.

        Raises:
            InvalidAlarm: There can't be such a name.
            StorageUnavailable: It could not be made durable.
        """
        key = self._key(object_type, object_id)
        check_name(key, name)
        self._check_loop()
        self._open().refuse_dropped(key)
        with self._storage_errors():
            return await self._scheduler.revive(key.alarm(str.__str__(name)))

    # --- inside ----------------------------------------------------------------------------------

    def _locate(
        self, object_type: type[DurableObject] | str, object_id: str
    ) -> tuple[Directory, str]:
        """Where to find an object: the directory of its type, and its address there.

        Raises:
            UnknownObjectType: No class goes by that name.
            InvalidObjectId: It can't be an id.
        """
        directory = self._catalogue.directory(object_type)
        return directory, directory.address(object_id, self._tenant)

    def _key(self, object_type: type[DurableObject] | str, object_id: str) -> ObjectKey:
        """The key of an object whose alarms are looked after; it may be one that others serve."""
        directory = self._catalogue.directory_for_alarms(object_type)
        return directory.key(directory.address(object_id, self._tenant))

    def _open(self) -> Services:
        """The services of the open runtime.

        Raises:
            RuntimeClosed: It isn't open.
        """
        if self._services is None:
            raise RuntimeClosed("the runtime was not entered yet")
        if self._services.closed:
            raise RuntimeClosed("the runtime is closed")
        return self._services

    async def _read(self, read: Callable[[Reader], R]) -> R:
        self._check_loop()
        with self._storage_errors():
            return await self._reader_runner.run(lambda: read(self._reader))

    def _check_loop(self) -> None:
        if not self._open().loop.is_current():
            raise WrongEventLoop("the runtime was used from a thread or event loop not its own")

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except StorageFault as fault:
            raise StorageUnavailable(self._storage.location, str(fault)) from fault


def checked_limit(limit: int) -> int:
    """How many things to list at most.

    Raises:
        ValueError: It isn't a number of things.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit must be an int of 1 or more, not {limit!r}")
    return min(limit, _MOST)

"""What can be done with objects from outside: what a runtime and its tenants have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from .._activations.calls import LocalCalls
from .._activations.info import ActivationInfo
from .._activations.operations import DELETE, ENSURE_STARTED, EXISTS, GET_STATE, PUT_STATE, STOP
from .._alarms.alarm import Alarm, alarm_of
from .._alarms.input import check_name, due_time, encoded_payload
from .._durations import UNSET, Duration, Unset, optional_seconds, positive_int
from .._errors import ObjectNotRunning, RuntimeClosed
from .._keys import AlarmKey, ObjectKey
from .._runtime.open_runtime import OpenRuntime
from ..storage import NewAlarm
from .durable_object import DurableObject
from .handle import Handle
from .registry import TypeRegistry

if TYPE_CHECKING:
    from .runtime import DurableRuntime

T = TypeVar("T", bound=DurableObject)

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
    _registry: TypeRegistry
    _opened: OpenRuntime | None

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
        calls, address = self._locate(object_type, object_id)
        limit = (
            calls.object_type.timeout
            if isinstance(timeout, Unset)
            else optional_seconds(timeout, "timeout")
        )
        # To type checkers a handle is an object: see the module of handles.
        return cast("T", self._registry.handle_class(calls)(calls, address, limit))

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
        calls, address = self._locate(object_type, object_id)
        handler = calls.object_type.handler(handler_name)
        return await calls.call(address, handler, args, kwargs, calls.object_type.timeout)

    def _dispatch(
        self,
        cls: type,
        object_id: str,
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Coroutine[Any, Any, object]:
        """See `Dispatcher`."""
        calls, address = self._locate(cls, object_id)
        object_type = calls.object_type
        return calls.call(address, object_type.handler(handler), args, kwargs, object_type.timeout)

    async def ensure_started(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo:
        """Activate an object if it isn't running: load it and run its after_load.

        Raises:
            ActivationFailed: after_load raised.
            StateDecodeError: What is stored can't be read.
            PersistenceError: It could not be loaded, or what after_load did not be stored.
        """
        calls, address = self._locate(object_type, object_id)
        await calls.operate(address, ENSURE_STARTED)
        found = calls.directory.find(address)
        if found is not None:
            return found.info()
        # Already gone again, in the moment between; it did start.
        return ActivationInfo(calls.object_type.key(address), "hibernated", 0, 0)

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        """What a running object is about, or None if it isn't in memory."""
        self._open()
        calls, address = self._locate(object_type, object_id)
        activation = calls.directory.find(address)
        return None if activation is None else activation.info()

    async def stop(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Let an object leave memory, behind the calls queued so far. Fine if it isn't running."""
        calls, address = self._locate(object_type, object_id)
        if calls.directory.find(address) is not None:
            await calls.operate(address, STOP)

    def count_objects(self) -> int:
        """How many objects are in memory, hibernated ones included."""
        return self._open().resident_set.count

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
        calls, address = self._locate(object_type, object_id)
        if calls.directory.find(address) is None:
            raise ObjectNotRunning(calls.object_type.key(address), "get_state")
        return cast("T", await calls.operate(address, GET_STATE))

    async def put_state(self, object_type: type[T] | str, object_id: str, instance: T, /) -> None:
        """Replace an object's state, stored or not, in turn behind the calls queued so far.

        Raises:
            TypeError: ``instance`` is of another class.
            StateEncodeError: The state can't be stored.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        calls, address = self._locate(object_type, object_id)
        cls, codec = calls.object_type.cls, calls.object_type.codec
        if type(instance) is not cls:
            raise TypeError(
                f"put_state of a {cls.__qualname__} takes an instance of it, "
                f"not {type(instance).__qualname__}"
            )
        key = calls.object_type.key(address)
        state = codec.encode(key, instance)
        codec.check_size(key, state)
        await calls.operate(address, PUT_STATE, state)

    async def exists(self, object_type: type[DurableObject] | str, object_id: str, /) -> bool:
        """Whether anything is stored of an object, in turn behind the calls queued so far.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            StorageUnavailable: It could not be looked up.
        """
        calls, address = self._locate(object_type, object_id)
        if calls.directory.find(address) is not None:
            return bool(await calls.operate(address, EXISTS))
        key = calls.object_type.key(address)
        rows = await self._open().read(lambda reader: reader.load([key]))
        return rows[0] is not None

    async def delete(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Delete what is stored of an object, behind the calls queued so far. Fine if nothing is.

        The object starts from its defaults again.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        calls, address = self._locate(object_type, object_id)
        await calls.operate(address, DELETE)

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
        listed = self._registry.calls(object_type).object_type
        if after:
            listed.address(after, self._tenant)
        name, limit, tenant = listed.name, checked_limit(limit), self._tenant
        return await self._open().read(lambda reader: reader.list_ids(name, after, limit, tenant))

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
        await self._open().scheduler.schedule(key, str.__str__(name), new)

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
        await self._open().scheduler.cancel(key, str.__str__(name))

    async def cancel_all_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> None:
        """Cancel all alarms of an object, dead letters too.

        Raises:
            CallTimeout: It wasn't durable within the class's or runtime's timeout.
            PersistenceError: It could not be made durable.
        """
        key = self._key(object_type, object_id)
        await self._open().scheduler.cancel_all(key)

    async def list_alarms(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> list[Alarm]:
        """The alarms of an object, by ``due_at``; without dead letters.

        Raises:
            InvalidAlarm: What is stored of one can't be read.
            StorageUnavailable: They could not be looked up.
        """
        key = self._key(object_type, object_id)
        opened = self._open()
        opened.check_usable()
        with opened.storage_errors():
            stored = await opened.scheduler.list(key)
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
        type_name = self._registry.calls(object_type).object_type.name
        last = None if after is None else AlarmKey(type_name, after.key.object_id, after.name)
        limit, tenant = checked_limit(limit), self._tenant
        opened = self._open()
        opened.check_usable()
        with opened.storage_errors():
            dead = await opened.scheduler.dead_letters(type_name, last, limit, tenant)
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
        opened = self._open()
        opened.check_usable()
        opened.services.refuse_dropped(key)
        with opened.storage_errors():
            return await opened.scheduler.revive(key.alarm(str.__str__(name)))

    # --- inside ----------------------------------------------------------------------------------

    def _locate(
        self, object_type: type[DurableObject] | str, object_id: str
    ) -> tuple[LocalCalls, str]:
        """The calls of an object's type, and its address there.

        Raises:
            UnknownObjectType: No class goes by that name.
            InvalidObjectId: It can't be an id.
        """
        calls = self._registry.calls(object_type)
        return calls, calls.object_type.address(object_id, self._tenant)

    def _key(self, object_type: type[DurableObject] | str, object_id: str) -> ObjectKey:
        """The key of an object whose alarms are set here; another runtime may serve its type."""
        alarmed = self._registry.calls_for_alarms(object_type).object_type
        return alarmed.key(alarmed.address(object_id, self._tenant))

    def _open(self) -> OpenRuntime:
        """The parts of the open runtime.

        Raises:
            RuntimeClosed: It isn't open.
        """
        if self._opened is None:
            raise RuntimeClosed("the runtime was not entered yet")
        self._opened.check_open()
        return self._opened


def checked_limit(limit: int) -> int:
    """How many things to list at most.

    Raises:
        ValueError: It isn't a number of things.
    """
    return min(positive_int(limit, "limit"), _MOST)

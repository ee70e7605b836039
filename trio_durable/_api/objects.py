"""`Objects`: calls, state and alarms of objects from outside, for a runtime or a tenant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from .._activations.calls import LocalCalls
from .._activations.info import ActivationInfo
from .._cluster.nodes import Node
from .._durations import UNSET, Duration, Unset, optional_seconds
from .._errors import RuntimeClosed
from .._keys import ObjectKey
from .._runtime.administration import Administration
from .._runtime.open_runtime import OpenRuntime
from .durable_object import DurableObject
from .handle import Handle
from .messages import checked_limit
from .plain_arguments import with_models
from .snapshot import StatesPage, checked_expected, conflict, read_page
from .watches import Watches

if TYPE_CHECKING:
    from .runtime import DurableRuntime

T = TypeVar("T", bound=DurableObject)

_PAGE_BYTES = 16 * 1024 * 1024


class Objects(Watches):
    """Handles, calls, state and alarms of objects.

    A `DurableRuntime` serves the objects without a tenant, and a `Tenant` those of one tenant.

    A type is a class or its stored name; an id is any str of 1 to 512 bytes without NUL. All
    members but `root` need the runtime open, and its event loop.

    Raises:
        UnknownObjectType: No class has that name.
        InvalidObjectId: The id is invalid.
        RuntimeClosed: The runtime isn't open, or has closed meanwhile.
        WrongEventLoop: The caller runs in another thread or event loop.
        TenantDropped: The tenant is being dropped.
        Overloaded: A call or a change was unlikely to finish before its timeout. It was not run.
    """

    _opened: OpenRuntime | None
    _administration: Administration
    """Set as soon as `_opened` is."""

    @property
    @abstractmethod
    def root(self) -> DurableRuntime:
        """The runtime itself; of a tenant, the runtime that it belongs to."""

    # --- objects and calls -----------------------------------------------------------------------

    @overload
    def get(
        self,
        object_type: type[T],
        object_id: str,
        /,
        *,
        timeout: Duration | Unset | None = UNSET,
        once: str | None = None,
    ) -> T: ...
    @overload
    def get(
        self,
        object_type: str,
        object_id: str,
        /,
        *,
        timeout: Duration | Unset | None = UNSET,
        once: str | None = None,
    ) -> Handle: ...
    def get(
        self,
        object_type: type[T] | str,
        object_id: str,
        /,
        *,
        timeout: Duration | Unset | None = UNSET,
        once: str | None = None,
    ) -> T | Handle:
        """A handle of one object, whose handlers are awaited. Neither loads nor creates the object.

        A call with a once-key (an idempotency key) happens once, however often it is made, by
        whichever process: the turn stores its reply together with its effects, and later calls
        with the key get that reply. So the runtime repeats such a call by itself, within its
        timeout, where a plain one gets an error whose outcome isn't known. The key is the object's:
        other objects may have the same. A turn that raises stores nothing. Replies take 64 KiB of
        JSON at most, and are kept for the class's ``remember``, a day by default.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id, any str of 1 to 512 bytes without NUL.
            timeout: How long each call waits for its reply; None for ever.
            once: The once-key of the call for which the handle is, any str as the id may be.

        Raises:
            UnknownObjectType: No class has that name.
            InvalidObjectId: The id is invalid.
            RuntimeClosed: The runtime isn't open.
            InvalidOnceKey: The key can't be one, or the handler is read-only; from the call, as are
                `OnceKeyReused`, `OnceReplyUnreadable` and `OnceMessageDied`.
        """
        self._open()
        calls, address = self._locate(object_type, object_id)
        limit = (
            calls.object_type.timeout
            if isinstance(timeout, Unset)
            else optional_seconds(timeout, "timeout")
        )
        # To type checkers a handle is an object: see the module of handles.
        if once is None:
            return cast("T", self._registry.handle_class(calls)(address, limit))
        return cast("T", self._registry.once_handle_class(calls)(address, limit, self._once, once))

    async def call(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        handler_name: str,
        /,
        *args: object,
        once: str | None = None,
        **kwargs: object,
    ) -> object:
        """Call a handler by name.

        Plain JSON is accepted for a parameter that is declared as a model: an attrs class, a
        dataclass, a NamedTuple, a pydantic model or a msgspec Struct. The handler gets the model,
        checked.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id.
            handler_name: The handler.
            args: Its arguments.
            once: The once-key of the call, see `get`. For a parameter of that name use `get`.
            kwargs: Its arguments, by name.

        Raises:
            ArgumentError: The arguments don't fit the handler, or can't be passed by value.
            UnknownObjectType: No class has that name.
            UnknownHandler: The class has no such handler.
            InvalidObjectId: The id is invalid.
            CallTimeout: No reply arrived within the class's or runtime's timeout.
            PersistenceError: The turn's changes could not be made durable.
            Exception: The handler's error, after its turn was rolled back.
        """
        calls, address = self._locate(object_type, object_id)
        object_type_ = calls.object_type
        handler = object_type_.handler(handler_name)
        args, kwargs = with_models(
            object_type_, handler, lambda: object_type_.key(address), args, kwargs
        )
        if once is not None:
            timeout = object_type_.timeout
            return await self._once(calls, address, handler, args, kwargs, timeout, once)
        return await calls.call(address, handler, args, kwargs, object_type_.timeout)

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
        its = calls.object_type
        return calls.call(address, its.handler(handler), args, kwargs, its.timeout)

    async def ensure_started(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo:
        """Activate an object if it isn't in memory: load it and run its ``after_load``.

        Raises:
            ActivationFailed: ``after_load`` raised.
            StateDecodeError: The stored state can't be decoded.
            PersistenceError: The object could not be loaded, or the changes of ``after_load`` could
                not be made durable.
        """
        calls, address = self._locate(object_type, object_id)
        return await self._administered().ensure_started(calls, address)

    def whereis(
        self, object_type: type[DurableObject] | str, object_id: str, /
    ) -> ActivationInfo | None:
        """A snapshot of an object in this process's memory; None if it isn't there.

        In a cluster it may be in that of another process, see `locate`.
        """
        self._open()
        calls, address = self._locate(object_type, object_id)
        activation = calls.directory.find(address)
        return None if activation is None else activation.info()

    async def locate(self, object_type: type[DurableObject] | str, object_id: str, /) -> Node:
        """The runtime that an object lives in, in memory or not: in a cluster, its owner.

        Raises:
            CallTimeout: No process of the cluster answered within the runtime's timeout.
        """
        calls, address = self._locate(object_type, object_id)
        return await self._administered().locate(calls.object_type.key(address))

    async def stop(
        self,
        object_type: type[DurableObject] | str,
        object_id: str,
        /,
        *,
        interrupt: bool = False,
    ) -> None:
        """Let an object leave memory after the calls queued so far. No error if it isn't there.

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id.
            interrupt: Cancel the ``async def`` turn that runs. It is rolled back, whatever it
                returns, and its caller gets `TurnInterrupted`. The calls behind it are served.

        Raises:
            CallCycle: The caller is a turn of the object, or the object waits for it.
            TurnWontEnd: The interrupted turn still runs after the class's or runtime's call
                timeout; after 60 seconds if that is None.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
        """
        calls, address = self._locate(object_type, object_id)
        await self._administered().stop(calls, address, interrupt)

    def count_objects(self) -> int:
        """The number of objects in memory, hibernated ones included."""
        return self._open().resident_set.count

    # --- state from outside ----------------------------------------------------------------------

    @overload
    async def get_state(self, object_type: type[T], object_id: str, /) -> T: ...
    @overload
    async def get_state(self, object_type: str, object_id: str, /) -> DurableObject: ...
    async def get_state(self, object_type: type[T] | str, object_id: str, /) -> T | DurableObject:
        """A detached copy of the state of an object in memory, after the calls queued so far.

        Raises:
            ObjectNotRunning: The object isn't in memory.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
        """
        calls, address = self._locate(object_type, object_id)
        return cast("T", await self._administered().get_state(calls, address))

    async def put_state(
        self,
        object_type: type[T] | str,
        object_id: str,
        instance: T,
        /,
        *,
        expected: tuple[int, str | None] | None = None,
    ) -> None:
        """Replace an object's state, stored or not, after the calls queued so far.

        With ``expected`` it is replaced only if it still is the state of a snapshot (optimistic
        concurrency control). So a user may change what a page shows, and no change of others in
        the meantime is lost. ::

            snapshot = (await runtime.list_states(Cart)).states[0]
            cart = snapshot.state
            cart.total = 0
            expected = snapshot.revision, snapshot.digest
            await runtime.put_state(Cart, snapshot.key.object_id, cart, expected=expected)

        Args:
            object_type: The class, or its stored name.
            object_id: The object's id.
            instance: The state.
            expected: The revision and the digest of the snapshot; ``(0, None)`` if nothing may be
                stored. By default, any state is replaced.

        Raises:
            StateConflict: Another state is stored than the expected one. Nothing was written.
            TypeError: ``instance`` is of another class, or ``expected`` isn't such a pair.
            StateEncodeError: The state can't be stored.
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: The state could not be made durable.
        """
        calls, address = self._locate(object_type, object_id)
        cls, codec = calls.object_type.cls, calls.object_type.codec
        if type(instance) is not cls:
            raise TypeError(
                f"put_state of a {cls.__qualname__} takes an instance of it, "
                f"not {type(instance).__qualname__}"
            )
        key = calls.object_type.key(address)
        state = codec.encode_fields(key, instance)
        codec.check_size(key, state)
        if expected is None:
            await self._administered().put_state(calls, address, state)
            return
        revision, digest = checked_expected(expected)
        administered = self._administered()
        other = await administered.replace_state(calls, address, state, revision, digest)
        if other is not None:
            raise conflict(key, revision, *other)

    async def exists(self, object_type: type[DurableObject] | str, object_id: str, /) -> bool:
        """True if an object is stored, after the calls queued so far.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            StorageUnavailable: The storage can't be read.
        """
        calls, address = self._locate(object_type, object_id)
        return await self._administered().exists(calls, address)

    async def delete(self, object_type: type[DurableObject] | str, object_id: str, /) -> None:
        """Delete an object's stored state and its alarms, after the calls queued so far.

        No error if nothing is stored. The next call starts from the defaults.

        Raises:
            CallTimeout: Its turn didn't come within the class's or runtime's timeout.
            PersistenceError: The deletion could not be made durable.
        """
        calls, address = self._locate(object_type, object_id)
        await self._administered().delete(calls, address)

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
            after: Only ids after this one; pass the last id of a page for the next page.
            limit: The size of a page, a million at most; a larger limit means a million.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        listed = self._registry.calls(object_type).object_type
        if after:
            listed.address(after, self._tenant)
        name, limit, tenant = listed.name, checked_limit(limit), self._tenant
        return await self._open().read(lambda reader: reader.list_ids(name, after, limit, tenant))

    async def list_states(
        self, object_type: type[T] | str, /, *, after: str | None = None, limit: int = 100
    ) -> StatesPage[T]:
        """The stored states of a type's objects, in the order of the ids' UTF-8 bytes.

        No state is older than a reply that has arrived. The objects aren't loaded, and calls don't
        wait: the states are read by a connection of their own. A state that this release can't
        read is in the page, and raises when it is asked for. ::

            page = await runtime.list_states(Cart)
            while True:
                for snapshot in page:
                    print(snapshot.key.object_id, snapshot.state.total)
                if page.next is None:
                    break
                page = await runtime.list_states(Cart, after=page.next)

        Args:
            object_type: The class, or its stored name.
            after: Only ids after this one; pass ``next`` of a page for the next page.
            limit: The most states of a page, a million at most. A page also ends when its states
                have 16 MiB of JSON together, or with the one that exceeds that.

        Raises:
            ValueError: ``limit`` isn't an int of 1 or more.
            StorageUnavailable: The storage can't be read.
        """
        listed = self._registry.calls(object_type).object_type
        if after:
            listed.address(after, self._tenant)
        read = partial(
            read_page,
            object_type=listed,
            after=after,
            limit=checked_limit(limit),
            tenant=self._tenant,
            most_bytes=_PAGE_BYTES,
        )
        return await self._open().read(read, apart=True)

    # --- inside ----------------------------------------------------------------------------------

    def _locate(
        self, object_type: type[DurableObject] | str, object_id: str
    ) -> tuple[LocalCalls, str]:
        """The calls of an object's type, and its address there.

        Raises:
            UnknownObjectType: No class has that name.
            InvalidObjectId: The id is invalid.
        """
        calls = self._registry.calls(object_type)
        return calls, calls.object_type.address(object_id, self._tenant)

    def _key(self, object_type: type[DurableObject] | str, object_id: str) -> ObjectKey:
        """The key of an object whose alarms are set here; another runtime may serve its type."""
        known = self._registry.type_of(object_type)
        return known.key(known.address(object_id, self._tenant))

    def _administered(self) -> Administration:
        """The requests that are made of the runtime, for the caller's event loop.

        Raises:
            RuntimeClosed: It isn't open.
            WrongEventLoop: The caller runs elsewhere.
        """
        self._usable()
        return self._administration

    def _usable(self) -> OpenRuntime:
        """`_open`, for the caller's event loop.

        Raises:
            RuntimeClosed: It isn't open.
            WrongEventLoop: The caller runs elsewhere.
        """
        opened = self._open()
        opened.check_usable()
        return opened

    def _name_of(self, object_type: type[DurableObject] | str | None) -> str | None:
        return None if object_type is None else self._registry.type_of(object_type).name

    def _open(self) -> OpenRuntime:
        """The parts of the open runtime.

        Raises:
            RuntimeClosed: It isn't open.
        """
        if self._opened is None:
            raise RuntimeClosed("the runtime was not entered yet")
        self._opened.check_open()
        return self._opened

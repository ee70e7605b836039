"""``self.ctx``: what a handler can do besides changing its state, and the effects it stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from ._errors import NotInTurn
from ._keys import ObjectKey

if TYPE_CHECKING:
    from ._runtime import DurableRuntime


@attrs.define
class Effects:
    """What a turn staged besides its state, to be committed with it."""

    delete: bool = False


class Host(Protocol):
    """What stands behind a context: an activation, or a test's stand-in for one."""

    key: ObjectKey

    @property
    def runtime(self) -> DurableRuntime:
        """The runtime that the object lives in."""
        ...

    @property
    def in_turn(self) -> bool:
        """Whether the caller is in a turn of the object."""
        ...

    async def commit_now(self) -> None:
        """Make durable what the turn has done so far."""
        ...


class Context:
    """What ``self.ctx`` is. It is the object's for as long as the instance lives."""

    __slots__ = ("_host", "effects")

    def __init__(self, host: Host) -> None:
        self._host = host
        self.effects: Effects | None = None

    @property
    def key(self) -> ObjectKey:
        """The object's identity."""
        return self._host.key

    @property
    def object_id(self) -> str:
        """The object's id."""
        return self._host.key.object_id

    @property
    def runtime(self) -> DurableRuntime:
        """The runtime that the object lives in, to call other objects through."""
        return self._host.runtime

    async def commit(self) -> None:
        """Make durable what this turn has done so far, and go on.

        For the moment before an effect outside: what is committed is not rolled back if the rest
        of the turn fails.

        Raises:
            PersistenceError: It could not be made durable. The turn fails whatever it does next.
            StateEncodeError: The state can't be stored.
            ReadonlyViolation: The handler is read-only.
            NotInTurn: No turn of the object runs.
        """
        self._require_turn("ctx.commit()")
        await self._host.commit_now()

    def delete(self) -> None:
        """Delete the object's stored state with this turn's commit.

        What the turn assigns to state counts for nothing then. The next call starts from the
        defaults.

        Raises:
            NotInTurn: No turn of the object runs.
        """
        self._stage("ctx.delete()").delete = True

    def _stage(self, what: str) -> Effects:
        self._require_turn(what)
        if self.effects is None:
            self.effects = Effects()
        return self.effects

    def _require_turn(self, what: str) -> None:
        if not self._host.in_turn:
            raise NotInTurn(f"{what} on {self._host.key} outside of a turn")

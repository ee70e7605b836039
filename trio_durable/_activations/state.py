"""State of one object: the encoded bytes, the live instance decoded from them, and its commits.

This is the one place where a turn's changes become a commit, and where they are undone. A test
that performs a single turn without a runtime drives the same `ObjectState`, so the rules exist
once.

State is compared encoded: after each turn the fields are encoded, and equal bytes mean no write.
The bytes are also the roll-back: the instance is dropped, and the next one decoded from the bytes
that the turn before has left. Copy-on-write or change tracking would be cheaper for large states,
but neither sees a mutation deep in a list, and a handler could keep a reference into the state.

Invariants:

- ``current`` is the state that the last ended turn left: that of the last ticket, or the stored
  one. Between turns the instance encodes to it. It is derived, so that a turn's changes count from
  the moment at which its ticket is the gate, wherever an exception falls.
- ``gate`` is the last ticket that isn't durable yet. Each reply of the object waits for it. A
  ticket that fails takes all that is in memory with it, since that may build on the lost change.
- ``effects`` belong to the turn that runs, and are None before and after it.
- ``turn`` is set exactly while a turn runs.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from .._alarms.delivery import Delivery
from .._alarms.recurrence import autostarts
from .._errors import (
    AlarmSuperseded,
    CommitRefused,
    InvalidMessage,
    ReadonlyViolation,
    ReplyError,
)
from .._json.state import compact
from .._keys import ObjectKey
from .._persistence.ticket import Ticket
from .._telemetry.events import Turn as TurnEvent
from ..storage import AlarmChanges, MessageChanges, StoredObject
from .by_value import copied, is_atom
from .effects import Effects
from .encoded import Encoded, Loaded, Unsaved, digest_of_row, fields_of, row_digest
from .exchange import Replies
from .object_type import ObjectType
from .state_host import StateHost
from .wait_graph import DEF_TURN, Turn, base_lost_error, current_turn


class ObjectState:
    """The state of one object, and the owner of its tickets."""

    __slots__ = (
        "_host",
        "base_lost",
        "effects",
        "encoded",
        "epoch",
        "gate",
        "instance",
        "key",
        "object_type",
        "revision",
        "turn",
    )

    def __init__(self, key: ObjectKey, object_type: ObjectType, host: StateHost) -> None:
        self.key: ObjectKey = key
        self.object_type: ObjectType = object_type
        self._host: StateHost | None = host
        """None once the object has left memory."""
        self.encoded: Encoded = None
        """The encoded fields as they are stored; None while the object has its defaults and these
        weren't encoded yet. See `current`."""
        self.instance: Any = None
        """The live instance; None until a turn needs one."""
        self.revision: int | None = None
        """The stored revision; 0 if nothing is stored, None if that isn't known."""
        self.epoch: int = 0
        """The stored epoch."""
        self.gate: Ticket | None = None
        self.base_lost: bool = False
        """A commit has failed. Tasks that ``def`` turns have started may know of it."""
        self.effects: Effects | None = None
        self.turn: Turn | None = None

    @property
    def is_once(self) -> bool:
        """See `Gated.is_once`."""
        return self.effects is not None and self.effects.once is not None

    @property
    def must_wait(self) -> bool:
        """See `Gated.must_wait`."""
        return self.base_lost or self.gate is not None

    # --- loading and instances -------------------------------------------------------------------

    def load(self, row: StoredObject | None) -> None:
        """Take over a stored row, or that there is none."""
        if row is None:
            self.revision, self.encoded, self.epoch = 0, None, 0
        else:
            self.revision, self.encoded, self.epoch = row.revision, Loaded(row.state), row.epoch

    @property
    def current(self) -> Encoded:
        """The encoded fields that the last ended turn left."""
        ticket = self._last_change()
        return self.encoded if ticket is None else ticket.encoded  # type: ignore[return-value]

    @current.setter
    def current(self, encoded: Encoded) -> None:
        # The same state, known better: its defaults, or the fields of a row.
        ticket = self._last_change()
        if ticket is None:
            self.encoded = encoded
        else:
            ticket.encoded = encoded

    def _last_change(self) -> Ticket | None:
        """The last ticket that changes the state and isn't durable."""
        ticket = self.gate
        while ticket is not None and not ticket.ended:
            if ticket.state is not None or ticket.delete:
                return ticket
            ticket = ticket.preceding
        return None

    @property
    def fields(self) -> bytes | None:
        """The encoded fields that the last ended turn left, if they are in memory."""
        return fields_of(self.current)

    @property
    def row_digest(self) -> str | None:
        """The digest of the row once the gate is passed; None if there is none."""
        ticket = self._last_change()
        if ticket is not None:
            return None if ticket.state is None else row_digest(ticket.state)
        return digest_of_row(self.encoded, self.object_type.codec.stored) if self.revision else None

    def instantiate(self, *, first: bool) -> Any:
        """Make the live instance from the encoded state.

        Args:
            first: It is the first one since the load. The row may lack new fields, or be written
                differently by an older release, so it is encoded once more: later turns are
                compared with bytes that this class writes.

        Raises:
            StateDecodeError: The state can't be read.
            StateEncodeError: There is no state yet, and a default can't be stored.
        """
        object_type = self.object_type
        instance = self._decoded(encode_again=first)
        assert self._host is not None
        object_type.attach_context(instance, self._host)
        self.instance = instance
        return instance

    def drop_instance(self) -> None:
        """Let the instance go; one that a handler has kept is a detached instance from now on."""
        if self.instance is not None:
            self.object_type.detach_context(self.instance)
            self.instance = None

    def read(self) -> Any:
        """A detached instance with the object's state."""
        return self._decoded(encode_again=False)

    def _decoded(self, *, encode_again: bool) -> Any:
        codec, encoded = self.object_type.codec, self.current
        if isinstance(encoded, Loaded):
            taken: list[str] = []
            instance = codec.decode(self.key, encoded.state, taken)
            if encode_again or taken:
                again = compact(codec.encode_fields(self.key, instance))
                self.current = encoded.written_again(again, codec.stored, bool(taken))
            return instance
        if encoded is not None:
            fields = encoded if isinstance(encoded, bytes) else encoded.fields
            return codec.decode_fields(self.key, fields)
        if codec.default_fields is not None:
            self.current = codec.default_fields
            return codec.new_instance()
        fields = codec.new_fields(self.key)
        self.current = Unsaved(fields, None)
        return codec.decode_fields(self.key, fields)

    def invalidate(self) -> None:
        """Forget all that is in memory: from now on the stored row counts."""
        self.drop_instance()
        self.encoded = None
        self.revision = None
        self.effects = None

    def drop_turn(self) -> None:
        """Forget a turn that an exception of the library's own has cut off."""
        self.turn = None
        self.effects = None
        self.drop_instance()

    def detach(self) -> None:
        """Leave memory: without the reference back, no cycle is left to the garbage collector."""
        self.drop_instance()
        self._host = None

    # --- the end of a turn -----------------------------------------------------------------------

    def stage(self) -> Effects:
        """The turn's effects, to add to them."""
        if self.effects is None:
            self.effects = Effects()
        return self.effects

    @property
    def in_turn(self) -> bool:
        """True if the caller is in the turn that runs.

        A context that another task has kept must not meddle with a turn that isn't its own.
        """
        turn = self.turn
        return turn is DEF_TURN or (
            turn is not None and (turn.is_def or current_turn.get() is turn)
        )

    def end_turn(
        self, name: str, readonly: bool, result: object, replies: Replies | None = None
    ) -> object:
        """Take over a turn's changes: copy its reply, and submit its commit.

        The returned reply may be handed out once `gate` has been passed. It is passed by the type's
        exchange, or by ``replies`` if these are given.

        Raises:
            ReplyError: The result can't be passed by value.
            ReadonlyViolation: The handler is read-only, and changed or staged something.
            StateEncodeError: The state can't be stored.
            AlarmSuperseded: The alarm that the turn handles was set or cancelled meanwhile.
        """
        effects = self.effects
        try:
            if replies is None and (exchange := self.object_type.exchange) is not None:
                fitting = exchange.fitting.get(name)
                if fitting is None or not fitting.passes(result):
                    result = self._reply(name, result, effects, exchange)
            elif replies is not None or not is_atom(result):
                result = self._reply(name, result, effects, replies)
            if effects is not None and effects.delivery is not None:
                self._check_not_superseded(effects.delivery, name)
                assert self._host is not None
                effects.end_delivery(self._host.wall_time())
            codec = self.object_type.codec
            places: list[int] = []
            state = codec.encode_fields(self.key, self.instance, places)
            encoded = self.encoded if self.gate is None else self.current
            if readonly:
                if state != encoded or effects is not None:
                    self._check_unchanged(name, state)
            elif len(state) > codec.max_fields_size and state != encoded:
                codec.check_size(self.key, state)
            if len(places) > 1 and len(set(places)) < len(places):
                # A mutable object stands in two places. The next instance has two, as after a
                # restart.
                self.drop_instance()
            if effects is not None:
                self.effects = None
                self._commit_effects(state, encoded, effects)
            elif state != encoded:
                self._save(state, None)
        except BaseException:
            self.roll_back()
            raise
        return result

    def commit_turn(self, turn: Turn) -> None:
        """Submit a running turn's changes so far.

        Raises:
            StateEncodeError: The state can't be stored.
            ReadonlyViolation: The handler is read-only.
            AlarmSuperseded: The alarm that the turn handles was set or cancelled meanwhile.
        """
        effects = self.effects
        if effects is not None and effects.delivery is not None:
            self._check_not_superseded(effects.delivery, turn.name)
        if effects is not None and effects.is_indivisible:
            raise CommitRefused(self.key, turn.name)
        codec = self.object_type.codec
        state = codec.encode_fields(self.key, self.instance)
        if turn.readonly:
            self._check_unchanged(turn.name, state)
        alarms = messages = None
        if effects is not None and effects.delete:
            effects.delete = False
            self._delete(effects.take_alarms(), effects.take_messages())
            effects.deleted = True
        elif state != self.current and not (effects is not None and effects.deleted):
            codec.check_size(self.key, state)
            if effects is not None:
                alarms, messages = effects.take_alarms(), effects.take_messages()
            self._save(state, alarms, messages)
        elif effects is not None:
            alarms, messages = effects.take_alarms(), effects.take_messages()
            if alarms is not None or messages is not None:
                self._submit(None, False, alarms, messages)

    def roll_back(self) -> None:
        """Undo a turn: the next instance is decoded from the state that the turn before left."""
        effects, self.effects = self.effects, None
        self.drop_instance()
        if effects is not None and effects.deleted:
            self._start_over()

    def _reply(
        self, name: str, result: object, effects: Effects | None, replies: Replies | None
    ) -> object:
        """A copy of a handler's result."""
        is_delivery = effects is not None and effects.delivery is not None
        if is_delivery and not isinstance(result, Coroutine):
            return None  # no caller waits for it
        if replies is not None and (is_atom(result) or not isinstance(result, Coroutine)):
            return replies.result(self.key, name, result)
        try:
            return copied(result)
        except TypeError as error:
            raise ReplyError(self.key, name, str(error)) from error

    def refuse_sends(self) -> None:
        """Refuse messages that ``after_load`` has staged: it would send them at each activation.

        Raises:
            InvalidMessage: There are some.
        """
        if self.effects is not None and self.effects.messages is not None:
            problem = "after_load can't send, since it runs at each activation; send from a handler"
            raise InvalidMessage(self.key, "after_load", problem)

    def _check_unchanged(self, name: str, state: bytes) -> None:
        if state != self.fields:
            raise ReadonlyViolation(self.key, name, "changed the object's state")
        if self.effects is not None:
            raise ReadonlyViolation(self.key, name, "staged effects through self.ctx")

    def _commit_effects(self, state: bytes, encoded: Encoded, effects: Effects) -> None:
        if effects.delete:
            self._delete(effects.alarms, effects.messages)
        elif state != encoded and not effects.deleted:
            self._save(state, effects.alarms, effects.messages)
        elif effects.alarms is not None or effects.messages is not None:
            self._submit(None, False, effects.alarms, effects.messages)
        if effects.delete or effects.deleted:
            self._start_over()

    def _start_over(self) -> None:
        self.drop_instance()
        self.current = None
        assert self._host is not None
        self._host.started_over()

    # --- commits ---------------------------------------------------------------------------------

    def _save(
        self, state: bytes, alarms: AlarmChanges | None, messages: MessageChanges | None = None
    ) -> None:
        host = self._host
        assert host is not None
        if self.object_type.autostarts and not self.is_stored:
            alarms = self._with_autostarts(alarms, host.wall_time())
        fields = compact(state)
        stored = self.object_type.codec.stored(fields)
        host.commits.submit(self, stored, False, alarms, fields, messages)

    def _delete(self, alarms: AlarmChanges | None, messages: MessageChanges | None = None) -> None:
        # Also if no state is stored, since it buries the messages that wait for the object.
        self._submit(None, True, alarms, messages)

    def _submit(
        self,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None,
        messages: MessageChanges | None = None,
    ) -> Ticket:
        host = self._host
        assert host is not None
        encoded = None if delete else self.current
        return host.commits.submit(self, state, delete, alarms, encoded, messages)

    def _with_autostarts(self, alarms: AlarmChanges | None, now: int) -> AlarmChanges | None:
        """The alarms of the commit that stores the object, with the ones that begin by it."""
        changes = autostarts(self.object_type.recurrences, self.key, now)
        if changes is not None and alarms is not None:
            changes.merge(alarms)
        return changes

    def autostart(self, now: int) -> None:
        """Begin the recurring alarms of an object that isn't stored and is to be started."""
        if self.object_type.autostarts and not self.is_stored:
            changes = autostarts(self.object_type.recurrences, self.key, now)
            assert changes is not None
            self.change_alarms(changes)

    def change_alarms(self, alarms: AlarmChanges) -> Ticket:
        """Change the object's alarms, and nothing else."""
        return self._submit(None, False, alarms)

    def replace(self, encoded: bytes) -> None:
        """Replace the state from outside."""
        if encoded != self.current or not self.is_stored:
            self._save(encoded, None)
        self.drop_instance()

    def rewrite(self, row: bytes) -> None:
        """Replace the stored row from outside; the next turn begins as after a load."""
        host = self._host
        assert host is not None
        host.commits.submit(self, row, False, None, Loaded(row))
        self.drop_instance()
        host.started_over()

    def delete(self) -> None:
        """Delete the object from outside."""
        self._delete(AlarmChanges(clear=True))
        self._start_over()

    @property
    def row_id(self) -> tuple[int, int]:
        """The revision and the epoch of the row once the gate is passed; revision 0 for none."""
        gate = self.gate
        if gate is not None and gate.revision is not None:
            return gate.next_revision or 0, gate.epoch
        return self.revision or 0, self.epoch

    @property
    def is_stored(self) -> bool:
        """True if the object has a row once the gate is passed."""
        return self.row_id[0] > 0

    def is_superseded(self, delivery: Delivery) -> bool:
        """True if a commit changed the alarm since its delivery began, durable or on its way."""
        ticket = self.gate
        while ticket is not None and not ticket.ended:
            if ticket.changes_alarm(delivery.key.name):
                return True
            ticket = ticket.preceding
        return delivery.is_superseded

    def _check_not_superseded(self, delivery: Delivery, name: str) -> None:
        if not delivery.replaced and self.is_superseded(delivery):
            raise AlarmSuperseded(self.key, name)

    # --- the owner of tickets: see `TicketOwner` -------------------------------------------------

    @property
    def turn_event(self) -> TurnEvent | None:
        """See `TicketOwner.turn_event`."""
        return None if self._host is None else self._host.turn_event

    def committed(self, ticket: Ticket) -> None:
        """See `TicketOwner.committed`."""
        if ticket.state is not None or ticket.delete:
            self.encoded = ticket.encoded  # type: ignore[assignment]  # opaque to tickets
        if self._host is not None:
            self._host.committed()

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`."""
        self.base_lost = True
        if self._host is not None:
            self._host.commit_failed()

    # --- ``def`` turns in which the event loop runs ----------------------------------------------

    def awaited_turn(self) -> Turn:
        """The record of the turn that runs, which is its own and no `DEF_TURN` from now on.

        A ``def`` turn may let the event loop run (nest_asyncio, greenback, eager tasks).
        """
        if self.turn is None or self.turn is DEF_TURN:
            self.turn = Turn(None, "", False)
            self.turn.is_def = True
        return self.turn

    def check_base(self) -> None:
        """Refuse to end a turn that has lost its base.

        Raises:
            PersistenceError: It has.
        """
        if self.turn is not None and self.turn.base_lost:
            raise base_lost_error(self.key)

    def end_awaited_turn(self) -> None:
        """The end of a ``def`` turn that has such a record."""
        turn, self.turn = self.turn, None
        if turn is not None and self._host is not None:
            self._host.was_awaited(turn.base_lost)

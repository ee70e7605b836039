"""Showings: the state of an object that a client has, and the event that brings it up to date."""

from __future__ import annotations

from enum import Enum, auto

from .._api.snapshot import Snapshot
from ._renderings import Rendering, T, View, rendering, revision_of, token_of_failure


class _Kind(Enum):
    NOTHING = auto()
    """Nothing was sent in this stream; the client may have something of an earlier one."""
    STATE = auto()
    GONE = auto()
    FAILURE = auto()


_NAMES = {_Kind.STATE: None, _Kind.GONE: "gone", _Kind.FAILURE: "unavailable"}


class Showing:
    """The part of one object in a stream of events.

    Args:
        token: The object's part of the client's ``Last-Event-ID``; "" if it has none.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        """Identifies the state that the client has."""
        self._kind = _Kind.NOTHING
        self._shown: Rendering | None = None
        self._was_stored = revision_of(token) > 0
        self._is_gone = False

    def update(self, view: View[T], snapshot: Snapshot[T]) -> tuple[str | None, bytes] | None:
        """Show a snapshot.

        Returns:
            The name and the data of an event; None if the client has that state.
        """
        new = rendering(view, snapshot)
        if new.data is None:
            return self.fail(snapshot.revision, new)
        kind = _Kind.STATE
        if snapshot.revision == 0 and (self._was_stored or self._is_gone):
            kind = _Kind.GONE
        if self._kind is _Kind.NOTHING:
            has_it = new.token == self.token
        else:
            has_it = (kind, new.data) == (self._kind, self._data)
        self.token, self._kind, self._shown = new.token, kind, new
        self._was_stored, self._is_gone = snapshot.revision > 0, kind is _Kind.GONE
        return None if has_it else (_NAMES[kind], new.data)

    def fail(
        self, revision: int | None = None, failure: Rendering | None = None
    ) -> tuple[str | None, bytes] | None:
        """Show that the state isn't available, of this revision or the last one."""
        if revision is None:
            revision = revision_of(self.token)
        had_failed = self._kind is _Kind.FAILURE
        self.token, self._kind, self._shown = token_of_failure(revision), _Kind.FAILURE, failure
        self._was_stored = revision > 0
        return None if had_failed else (_NAMES[self._kind], b"{}")

    @property
    def _data(self) -> bytes | None:
        return None if self._shown is None else self._shown.data

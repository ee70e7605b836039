"""Audit: the changes by the inspector, each with its user and its outcome.

Each attempt is a record of the logger ``trio_durable.audit``, an `Audited` event for the runtime's
instruments, and an entry of the page. States are in none of them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator

import attrs

from .._keys import ObjectKey
from .._telemetry.events import Audited, AuditedAction

logger = logging.getLogger("trio_durable.audit")

_KEPT = 256


@attrs.frozen
class AuditEntry:
    """An attempt to change something."""

    at: int
    """In microseconds since 1970 UTC."""
    event: Audited


class Audit:
    """The audit of one inspector."""

    def __init__(self) -> None:
        self._entries: deque[AuditEntry] = deque(maxlen=_KEPT)

    def entries(self) -> Iterator[AuditEntry]:
        """The latest attempts, the last one first."""
        return iter(tuple(reversed(self._entries)))

    def record(
        self,
        at: int,
        who: str,
        action: AuditedAction,
        key: ObjectKey,
        outcome: str,
        *,
        name: str = "",
        before: int | None = None,
        after: int | None = None,
    ) -> Audited:
        """Record an attempt.

        Args:
            at: The time, in microseconds since 1970 UTC.
            who: The user.
            action: The action.
            key: The object.
            outcome: Its outcome in a word, such as ``"done"`` or ``"conflict"``.
            name: The alarm's name, or the message's id.
            before: The revision that an edit is based on.
            after: The revision that it has stored.
        """
        event = Audited(key, who, action, name, before, after, outcome)
        self._entries.append(AuditEntry(at, event))
        # Names come from users and from storage, so that they are quoted.
        logger.info(
            "%r: %s %s%s, revision %s to %s: %s",
            *(who, action, key, f" {name!r}" if name else "", before, after, outcome),
            extra={
                "durable_event": "audited",
                "durable_who": who,
                "durable_action": action,
                "durable_type": key.type_name,
                "durable_id": key.object_id,
                "durable_tenant": key.tenant,
                "durable_name": name,
                "durable_before": before,
                "durable_after": after,
                "durable_outcome": outcome,
            },
        )
        return event

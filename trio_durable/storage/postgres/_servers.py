"""Identity of the PostgreSQL server at the end of a connection.

The writer, the reader and the node of a storage have a connection each, and reconnect
independently. After a failover one could lead to the new primary and another one to the old
primary, which still answers. So each connection knows its server, and all connections of a storage
must lead to the same one.

Prior art: Patroni and repmgr identify a server by system identifier and timeline, as its WAL does.
The start time of the postmaster tells apart two copies of one system on one timeline.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Server:
    """A running server, as a connection sees it."""

    started_at: int
    """The start time of its postmaster, in microseconds since 1970 UTC."""
    is_standby: bool
    is_read_only: bool
    """True if transactions may not write by default, as on a standby."""
    system: int | None = None
    """The system identifier; None if the role may not read it."""
    timeline: int | None = None
    """The timeline, which each promotion raises; None on a standby and if it can't be read."""

    @property
    def incarnation(self) -> str:
        """The server from one start or promotion to the next, for comparison.

        After a failover or a start it may lack what it had before.
        """
        return f"{self.system or ''}/{self.started_at}/{self.timeline or ''}"

    def precedes(self, other: Server) -> bool:
        """True if the other one is of the same system and was promoted since."""
        if self.system is None or self.timeline is None or other.timeline is None:
            return False
        return self.system == other.system and self.timeline < other.timeline


class CurrentServer:
    """The server that all connections of a storage must lead to: the one of the newest connection.

    Connections to a standby that the user asked for don't count. Used from any thread: each method
    reads or stores one attribute.
    """

    def __init__(self) -> None:
        self._server: Server | None = None
        self.address: tuple[str, str, str] | None = None
        """Host, address and port of the newest connection, to try first the next time."""
        self.writers = 0
        """The number of open writers of the storage."""
        self.may_prepare = True
        """False once a prepared statement turned out to be gone or another one."""

    def is_(self, server: Server) -> bool:
        """True if a connection to ``server`` may be used."""
        return self._server is server or self._server == server

    def is_newer_than(self, server: Server) -> bool:
        """True if the current server was promoted after ``server`` was the primary."""
        return self._server is not None and server.precedes(self._server)

    def move(self, server: Server) -> None:
        """A new connection leads to ``server``."""
        self._server = server

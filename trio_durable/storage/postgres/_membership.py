"""Membership of a runtime among the nodes of a PostgreSQL database: joining, renewing, leaving.

Renewals come from a thread of their own with a connection of its own, because neither a handler
that takes seconds nor a commit that waits for a lock may cost the node its lease. The thread stops
renewing when the event loop hasn't run for `NodeSettings.unresponsive_after` seconds, so a process
that hangs gives its objects up.

A node that joins alone is refused while another one lives. A dead one is removed first, see
`_deaths`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import socket
import threading
from collections.abc import Callable
from time import sleep
from uuid import uuid4

import attrs
import psycopg

from ..._clock import boot_time
from ..._errors import StorageInUse, StorageUnavailable
from .._membership import Lease, Membership
from . import _errors as problems
from ._connecting import Settings, Unreachable
from ._connection import Connection, WrongServer
from ._deaths import Deaths, Sign
from ._leases import VALID_PART, CurrentLease, NodeLease
from ._nodes import FoundNode, Joined, NewNode, NodeTable
from ._presence import Presence, is_gone

logger = logging.getLogger("trio_durable.storage")

DEFAULT_TTL = 5.0
DEFAULT_UNRESPONSIVE_AFTER = 30.0

BEATS = 4
"""The number of renewals in one TTL."""
_LOOKS = 20
"""How often a node that joins looks at another one in the TTL of that."""
_RETRIES = 25
"""How often a renewal that failed is tried again in one TTL."""
_MAX_RETRY_SECONDS = 1.0
_LEAVE_SECONDS = 1.0
LEAST_WAIT_SECONDS = 0.02

REMEDY = "stop its process first, or open both with cluster=True"
REMOVED = "another node has removed it, or the server has lost its row"


@attrs.frozen
class NodeSettings:
    """Durations in the life of a node, in seconds."""

    ttl: float = DEFAULT_TTL
    """Time without a renewal after which others may remove the node."""
    unresponsive_after: float = DEFAULT_UNRESPONSIVE_AFTER
    """Time after which a node whose event loop hangs isn't renewed any more."""
    group: str | None = None
    """The group of the node; None for one that owns all objects alone."""
    remedy: str = REMEDY
    """The advice in the error of a refused node."""


class PostgresMembership(Membership):
    """The membership of one writer.

    Args:
        settings: For its connections.
        home: The schema of the nameless tenant.
        node: The durations.
        current: Gets each lease, for all sides of the storage.
    """

    _succession = "this one takes its place"
    """The consequence of the death of a node, for logs."""

    def __init__(
        self, settings: Settings, home: str, node: NodeSettings, current: CurrentLease
    ) -> None:
        self._settings = settings
        self._node = node
        self._table = NodeTable(home)
        self._current = current
        self._presence = Presence()
        self._connection: Connection | None = None
        self._deaths = Deaths()
        self._post: Callable[[Callable[[], object]], object] | None = None
        self._ticked_at = boot_time()
        self._renew_at = 0.0
        self._woken = threading.Event()
        self._is_closing = self._is_left = False
        self.rejoined: Callable[[], object] = lambda: None
        """Called by `rejoin` at the beginning of the next lease."""
        self._in_use = threading.Lock()
        """Held by the thread that uses the connection."""
        # A daemon thread, so that a connection attempt doesn't delay the end of the process.
        self._thread = threading.Thread(target=self._run, name="trio_durable node", daemon=True)

    # --- see `Membership` ------------------------------------------------------------------------

    @property
    def is_alone(self) -> bool:
        """True if the node owns all objects, and not a member of a group."""
        return self._node.group is None

    @property
    def lease(self) -> Lease:
        """See `Membership.lease`."""
        lease = self._current.lease
        assert lease is not None
        return lease

    def follow(
        self, post: Callable[[Callable[[], object]], object], lost: Callable[[Lease, str], object]
    ) -> None:
        """See `Membership.follow`."""
        self._tick()
        self._post = post
        self._current.call_on_loss(lost)

    def rejoin(self) -> None:
        """See `Membership.rejoin`."""
        self._current.lose(self._current.lease, "the runtime joins again")
        self.join()
        self.rejoined()

    # --- joining and leaving, in the writer's thread ---------------------------------------------

    def join(self) -> bool:
        """Become the only node, or wait for the end of a dead one. Returns whether there was one.

        Raises:
            StorageInUse: Another node lives.
            StorageUnavailable: The server can't be reached, or is another one each time.
        """
        problem = None
        had_died = False
        try:
            with self._in_use:
                had_died = self._become_node()
        except Unreachable as error:
            problem = error.problem.text
        except (psycopg.Error, WrongServer) as error:
            problem = self._text(error)
        except BaseException:
            self._end()
            raise
        if problem is not None:
            self._drop()
            if self._thread.ident is None:
                self._end()
            raise StorageUnavailable(self._settings.conninfo.location, problem)
        if self._thread.ident is None:
            self._thread.start()
        self._woken.set()
        return had_died

    def _become_node(self) -> bool:
        before, ttl = self._current.lease, self._node.ttl
        had_died = before is not None
        deadline = boot_time() + self._settings.connect_timeout
        while True:
            connection = self._connected(self._settings.connect_timeout)
            server = connection.session.server.incarnation
            node = self._new_node(server)
            sent_at = boot_time()
            try:
                joined = connection.perform(
                    lambda connection, node=node: self._table.join(  # type: ignore[misc]
                        connection, node, None if before is None else before.node_id
                    )
                )
                if not joined.others:
                    self._begin(joined)
                    lease = NodeLease(node.node_id, server, sent_at + VALID_PART * ttl)
                    self._renew_at = 0.0
                    self._current.lease = lease
                    return had_died
                for other in joined.others:
                    had_died |= self._examine(connection, other)
            except psycopg.errors.LockNotAvailable:  # others join, or the dead one's last commit
                if boot_time() > deadline:
                    raise

    def _new_node(self, server: str) -> NewNode:
        """The node that joins, under an id of its own."""
        node = self._node
        proof = self._presence.proof
        return NewNode(uuid4(), socket.gethostname(), server, node.ttl, proof, node.group)

    def _begin(self, joined: Joined) -> None:
        """A lease is about to begin."""

    def _examine(self, connection: Connection, other: FoundNode) -> bool:
        """Look at another node: remove it if it is dead, else wait a moment. True if it is removed.

        Raises:
            StorageInUse: It lives.
        """
        if is_gone(other.proof) is False and other.age < other.ttl / 2:
            raise self._refusal(other)
        sign = self._deaths.look(other, connection.session.server.incarnation)
        if sign is Sign.RENEWED:
            raise self._refusal(other)
        if sign is Sign.DEAD:
            return self._remove(connection, other)
        if sign is Sign.UNKNOWN:
            self._say_that_it_waits(other)
        sleep(other.ttl / _LOOKS)
        return False

    def _remove(self, connection: Connection, other: FoundNode) -> bool:
        """Remove a dead node. False if it was renewed since the look."""
        removed = connection.perform(
            lambda connection: self._table.remove(
                connection, other.node_id, other.renewals, self._lock_wait
            )
        )
        if removed:
            logger.log(
                logging.INFO if is_gone(other.proof) else logging.WARNING,
                "%s: process %d on %s has died; %s",
                *(self._settings.conninfo.location, other.pid, other.host, self._succession),
            )
        return removed

    @property
    def _lock_wait(self) -> str:
        """The bound on the thread's waits for locks, which may not cost the lease."""
        return f"{max(1, round(1000 * min(1.0, self._node.ttl / 10)))}ms"

    def _say_that_it_waits(self, other: FoundNode) -> None:
        logger.warning(
            "%s belongs to process %d on %s, whose last renewal was %.1f s ago; waiting up to %g s "
            "for the next one, or for the end of its lease",
            *(self._settings.conninfo.location, other.pid, other.host),
            *(max(0.0, other.age), other.ttl),
        )

    def _refusal(self, other: FoundNode) -> StorageInUse:
        is_here = other.host == socket.gethostname()
        return StorageInUse(
            self._settings.conninfo.location,
            f"its last renewal was {max(0.0, other.age):.1f} s ago",
            other.pid,
            "" if is_here else other.host,
            self._node.remedy,
        )

    def leave(self) -> None:
        """Remove the own row, if the server can be reached now. Ends the thread."""
        self._is_closing = True
        self._woken.set()
        lease = self._current.lease
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_SECONDS)
        self._is_left = True
        if lease is not None and not self._thread.is_alive():
            lease.end()
            try:
                connection = self._connected(_LEAVE_SECONDS)
                connection.perform(lambda connection: self._table.leave(connection, lease.node_id))
            except (psycopg.Error, WrongServer, Unreachable) as error:
                logger.info("the node's row was left behind: %s", self._text(error))
        self._end()

    def _end(self) -> None:
        self._drop()
        self._current.close()
        self._presence.release()  # last: it is the proof if the row was left behind

    # --- renewing, in the thread -----------------------------------------------------------------

    def _run(self) -> None:
        pause: float | None = 0.0
        while True:
            self._woken.wait(pause)
            if self._is_closing:
                if self._is_left:
                    self._drop()  # it was made after `leave` had given up waiting for this thread
                return
            with self._in_use:
                self._woken.clear()
                lease = self._current.lease
                pause = None
                if lease is not None and not lease.is_reported:
                    pause = self._serve(lease)

    def _serve(self, lease: NodeLease) -> float | None:
        """Renew the lease if that is due. Returns the pause to the next time; None at its end."""
        is_due = boot_time() >= self._renew_at
        if is_due and not self._renew(lease):
            return None
        pause = math.inf
        if not is_due or self._connection is not None:  # else the renewal has failed
            pause = self._work(lease)
        return None if lease.is_reported else max(0.0, min(pause, self._renew_at - boot_time()))

    def _work(self, lease: NodeLease) -> float:
        """Do the rest of the thread's work. Returns the pause until there may be more of it."""
        return math.inf

    def _renew(self, lease: NodeLease) -> bool:
        """Renew the lease if all is well. Returns False at its end."""
        ttl = self._node.ttl
        pause = ttl / BEATS
        sent_at = boot_time()
        hung_for = self._hung_for(sent_at)
        problem = None
        if hung_for > self._node.unresponsive_after:
            problem = f"the event loop hasn't run for {hung_for:.0f} s"
        else:
            try:
                if not self._beat(lease):
                    lease.end()
                    problem = REMOVED
                elif not lease.extend(sent_at + VALID_PART * ttl):
                    problem = "its renewal came too late"
            except (psycopg.Error, WrongServer, Unreachable) as error:
                self._drop()
                problem = self._text(error)
                pause = self._retry_pause()
        now = boot_time()
        if problem is None:
            self._warn_if_slow(now - sent_at)
        elif lease.is_valid():
            pause = min(pause, lease.left)
        else:
            self._current.lose(lease, problem)
            return False
        self._renew_at = now + pause
        return True

    def _retry_pause(self) -> float:
        """The pause after a failure."""
        pause = min(self._node.ttl / _RETRIES, _MAX_RETRY_SECONDS)
        return pause * random.uniform(0.5, 1)  # noqa: S311  # jitter

    def _beat(self, lease: NodeLease) -> bool:
        connection = self._connected(max(lease.left, LEAST_WAIT_SECONDS))
        server = connection.session.server.incarnation
        if server != lease.server:
            return False
        return connection.perform(
            lambda connection: self._table.beat(connection, lease.node_id, server)
        )

    def _hung_for(self, now: float) -> float:
        """How long the event loop hasn't run. Asks it for the next time."""
        if self._post is None:
            return 0.0
        with contextlib.suppress(Exception):  # it has ended
            self._post(self._tick)
        return now - self._ticked_at

    def _tick(self) -> None:
        self._ticked_at = boot_time()

    def _warn_if_slow(self, seconds: float) -> None:
        if seconds > self._node.ttl / 8:
            logger.warning(
                "%s: a renewal of this node took %.1f s, of a TTL of %g s",
                *(self._settings.conninfo.location, seconds, self._node.ttl),
            )

    # --- inside ----------------------------------------------------------------------------------

    def _connected(self, timeout: float) -> Connection:
        """An open connection, whose waits take no longer than ``timeout``."""
        connection = self._connection
        if connection is not None and not (
            self._settings.current.is_(connection.session.server) and connection.is_usable()
        ):
            self._drop()
        if self._connection is None:
            timeout = min(timeout, self._settings.connect_timeout)
            self._connection = self._settings.connect("node", timeout)
        self._connection.silence_timeout = timeout
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()

    def _text(self, error: Exception) -> str:
        if isinstance(error, psycopg.Error):
            return self._settings.conninfo.censored(problems.statement_problem(error))
        return str(error)

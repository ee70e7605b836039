"""Links to the other members of a cluster: dialled when the first call needs one, or accepted.

Two members that dial each other at the same moment have two links, and each uses one of them; a
link costs little, and closing one of them safely would take an agreement.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from functools import partial

import anyio

from .._eventloop.loop import Loop
from .._eventloop.tasks import OwnTasks
from .._eventloop.timeouts import Deadlines
from .._text import error_summary
from ..storage import Member
from .address import dial, parse_address
from .handshake import Connection, Credentials, HandshakeFailed, greet
from .incoming import Incoming
from .peer import Peer
from .peers import Peers
from .settings import Cluster

logger = logging.getLogger("trio_durable.cluster")

DIAL_SECONDS = 2.5
"""How long a member has to answer before it is dialled once more."""
_LASTING_SECONDS = 0.25
"""The life of a link that counts as a success: its member is dialled at once when it ends.

A member without a lease, or one that leaves, ends each link right after the handshake, and stays
the owner of its shards for a while."""
_PAUSES = (0.0, 0.005, 0.02, 0.05, 0.25)
"""Before the first attempt and the later ones."""


class Links:
    """The links of one member.

    Args:
        loop: The event loop.
        tasks: Runs them.
        deadlines: Where requests time out.
        settings: The user's.
        tls: Encrypts the connections that are dialled; None without TLS.
        serve: Serves the requests of others.
        changed: Called when a link was made that was missing.
        ended: Called when one has ended, or couldn't be made: its member may be gone.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: OwnTasks,
        deadlines: Deadlines,
        settings: Cluster,
        tls: ssl.SSLContext | None,
        *,
        serve: Callable[[Incoming], object],
        changed: Callable[[], object],
        ended: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._tasks = tasks
        self._tls = tls
        self._changed = changed
        self._on_end = ended
        self._failed = failed
        self.credentials: Credentials | None = None
        """This member's; None while it has no lease."""
        self.members: Mapping[str, Member] = {}
        """The members that may be dialled, by id."""
        self._attempts: dict[str, int] = {}
        """How often a member was dialled since a link to it has lasted."""
        self._peers = Peers(
            loop, tasks, deadlines, settings, serve=serve, ended=self._ended, failed=failed
        )
        self._by_member: dict[str, Peer] = {}
        self._dialled: set[str] = set()
        """The members that are being dialled."""
        self._is_leaving = False

    def follow(self, members: Mapping[str, Member]) -> None:
        """These are the members from now on."""
        self.members = members
        for node_id in self._attempts.keys() - members.keys():
            del self._attempts[node_id]

    def peer(self, node_id: str) -> Peer | None:
        """The link to a member. If there is none, it is dialled."""
        peer = self._by_member.get(node_id)
        if peer is None and node_id not in self._dialled and not self._is_leaving:
            self._dialled.add(node_id)
            dialling = partial(self._dial, node_id)
            self._tasks.start(dialling, f"trio_durable dialling {node_id}", self._failed)
        return peer

    def accepted(self, connection: Connection) -> None:
        """Take over a connection of another member.

        Raises:
            HandshakeFailed: This one leaves, or is another one by now.
        """
        credentials = self.credentials
        if self._is_leaving or credentials is None:
            raise HandshakeFailed("this process leaves")
        if connection.me.node_id != credentials.me.node_id:
            raise HandshakeFailed("this process has joined again meanwhile")
        self._add(connection)

    async def _dial(self, node_id: str) -> None:
        """Dial a member until it answers, or isn't there any more."""
        try:
            while True:
                attempts = self._attempts.get(node_id, 0)
                self._attempts[node_id] = attempts + 1
                await anyio.sleep(_PAUSES[min(attempts, len(_PAUSES) - 1)])
                member, credentials = self.members.get(node_id), self.credentials
                if member is None or member.address is None or credentials is None:
                    self._attempts.pop(node_id, None)
                    return
                try:
                    connection = await self.connect(member, credentials)
                except (OSError, ValueError, HandshakeFailed) as error:
                    logger.info(
                        "%s at %s doesn't answer: %s", node_id, member.address, error_summary(error)
                    )
                    self._on_end()
                else:
                    if self._is_leaving or credentials is not self.credentials:
                        await anyio.aclose_forcefully(connection.stream)
                        return
                    self._add(connection)
                    return
        finally:
            self._dialled.discard(node_id)
            self._changed()

    async def connect(self, member: Member, credentials: Credentials) -> Connection:
        """Connect to a member, and shake hands.

        Raises:
            OSError: It can't be reached, or didn't answer in time.
            ValueError: Its address can't be read.
            HandshakeFailed: It refused.
        """
        assert member.address is not None
        address = parse_address(member.address)
        with anyio.fail_after(DIAL_SECONDS):
            stream = await dial(address, self._tls)
            return await greet(stream, credentials, member.node_id)

    def _add(self, connection: Connection) -> None:
        peer = self._peers.add(connection)
        self._by_member.setdefault(peer.them.node_id, peer)
        self._changed()

    def _ended(self, peer: Peer, seconds: float) -> None:
        node_id = peer.them.node_id
        if seconds >= _LASTING_SECONDS:
            self._attempts.pop(node_id, None)
        if self._by_member.get(node_id) is peer:
            del self._by_member[node_id]
            for other in self._peers:
                if other.them.node_id == node_id:
                    self._by_member[node_id] = other
                    break
        if not self._is_leaving:
            self._on_end()

    def abort(self, reason: str) -> None:
        """End all links at once: what was asked over them may be answered by nothing."""
        self.credentials = None
        self._peers.abort(reason)

    async def leave(self) -> None:
        """Say goodbye to all, behind all answers, and return when they have it."""
        self._is_leaving = True
        await self._peers.leave()

    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
        self._peers.forked()

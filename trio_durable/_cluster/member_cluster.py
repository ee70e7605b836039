"""Cluster of members: each has the objects of some shards, and calls the others for the rest.

The storage knows the members and the owner of each shard. This part of a runtime follows its views:
it serves the shards that it owns, forwards calls of the others, and gives shards away where another
member should have them. Messages between members decide nothing: what they say is a reason to look.

Invariants:

- Nothing is served without a valid lease. Views that come while the lease is over are ignored.
- Alarms of a shard are delivered once the claims of its former owner are void, and until the shard
  is closed for a hand-over.
- At the end of a lease all links end, so that no answer of it leaves.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import anyio

from .._activations.services import Services
from .._errors import StorageUnavailable
from .._eventloop.tasks import OwnTasks
from .._eventloop.wakeup import AutoResetEvent
from .._text import error_summary
from ..storage import ClusterMembership, Lease, StorageFault, View
from .address import TCPAddress, parse_address
from .endpoint import Endpoint
from .handover import HandOver
from .handshake import Credentials, HandshakeFailed, Introduction
from .incoming import Incoming
from .links import Links
from .listener import Listener
from .nodes import Node, by_shards, node_of_member, this_node
from .outcomes import NeverRan, OutcomeUnknown
from .peer import Peer
from .peers import ask
from .settings import Cluster
from .shard_map import ShardMap

logger = logging.getLogger("trio_durable.cluster")

ENTER_SECONDS = 5.0
"""How long entering may take to find a member that serves."""
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.05


class MemberCluster:
    """The part of a runtime that shares a database with others.

    Args:
        services: The runtime's parts.
        tasks: Runs the tasks, until `leave`.
        settings: The user's.
        location: The storage, for messages.
        endpoint: Where others reach this member.
        membership: The writer's.
        serve: Serves the requests of others.
        answered: Returns when all requests that have a task have their answers.
        release_claims: Ends the claims of alarms in some shards, in the writer's thread.
        fed: Called when the reader may return alarms and messages that weren't there before.
        failed: Called with a fault of the library's own.
    """

    def __init__(
        self,
        services: Services,
        tasks: OwnTasks,
        settings: Cluster,
        location: str,
        endpoint: Endpoint,
        membership: ClusterMembership,
        *,
        serve: Callable[[Incoming], object],
        answered: Callable[[], Awaitable[None]],
        release_claims: Callable[[Collection[int]], Awaitable[None]],
        fed: Callable[[], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._services = services
        self._tasks = tasks
        self._settings = settings
        self._location = location
        self._endpoint = endpoint
        self._membership = membership
        self._answered = answered
        self._release_claims = release_claims
        self._on_feed = fed
        self._failed = failed
        self.shard_map = ShardMap(membership, self._peer_of)
        self._links = Links(
            services.loop,
            tasks,
            services.deadlines,
            settings,
            endpoint.client_tls,
            serve=serve,
            changed=self._links_changed,
            ended=membership.look,
            failed=failed,
        )
        self._hand_over = HandOver(
            services.loop,
            self.shard_map,
            self._stop_feeding,
            self._feed,
        )
        self._listener: Listener | None = None
        self._lease: Lease | None = None
        """The lease that has begun here; None after its end."""
        self._fed: set[int] = set()
        """The shards whose alarms are delivered here."""
        self._viewed = AutoResetEvent(services.loop)
        """Set with each view, for `enter`."""
        membership.watch(self._seen)

    # --- entering --------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Serve, and follow the views. Returns with the first one.

        Raises:
            StorageUnavailable: Other members can't reach this one, or none serves and this one
                doesn't either.
        """
        self.begin(self._membership.lease)
        loop = self._services.loop
        until = loop.now() + ENTER_SECONDS
        while (view := self.shard_map.view) is None or not self._is_served(view):
            if view is not None and loop.now() >= until:
                raise StorageUnavailable(
                    self._location,
                    "no process serves it, and this one has serve=False; start one that serves it, "
                    "such as `trio-durable serve`",
                )
            await self._viewed.wait(0.25)
        await self._check_reachable(view)
        self._tasks.start(self._hand_over.run, "trio_durable hand-over", self._failed)

    def _is_served(self, view: View) -> bool:
        return any(member.serves for member in view.members.values())

    async def _check_reachable(self, view: View) -> None:
        """Check that members reach those that serve, where that isn't plain. None calls a client.

        Raises:
            StorageUnavailable: They can't.
        """
        serves = self._settings.serve
        me = view.members.get(self._membership.lease.holder)
        mine = self._endpoint.address
        address = parse_address(mine)
        if me is None:
            return
        for other in view.members.values():
            if other.host == me.host or other.address is None or not other.serves:
                continue
            if serves and address.is_loopback:
                problem = (
                    f"process {other.pid} on {other.host} is a member as well, and can't reach "
                    f"this one at {mine}: give listen= and advertise= an address of this machine "
                    "that others reach"
                )
            elif parse_address(other.address).is_loopback:
                problem = (
                    f"process {other.pid} on {other.host} is a member as well, and listens at "
                    f"{other.address}, which only its own machine reaches: give it listen= and "
                    "advertise="
                )
            else:
                continue
            raise StorageUnavailable(self._location, problem)
        if not isinstance(address, TCPAddress) or self._settings.advertise is None:
            return
        credentials = self._links.credentials
        if credentials is None:
            return
        try:
            connection = await self._links.connect(me, credentials)
        except (OSError, HandshakeFailed) as error:
            raise StorageUnavailable(
                self._location,
                f"this process can't be reached at advertise={self._settings.advertise!r} "
                f"({error_summary(error)}); other members would not reach it either",
            ) from error
        await anyio.aclose_forcefully(connection.stream)

    # --- leases ----------------------------------------------------------------------------------

    def begin(self, lease: Lease) -> None:
        """There is a lease, the first one or another one."""
        self._lease = lease
        self.shard_map.begin(lease.holder)
        self._fed.clear()
        me, settings = self._me(), self._settings
        introduction = Introduction(
            me.node_id, me.release, settings.max_calls, settings.max_frame, me.as_info()
        )
        credentials = Credentials(settings.group, self._membership.secret, introduction)
        self._links.credentials = credentials
        self._membership.look()  # views that came before were ignored
        if self._listener is not None:
            self._listener.credentials = credentials
            return
        self._listener = Listener(
            self._services.loop,
            self._endpoint.listening,
            credentials,
            accepted=self._links.accepted,
            tls=self._endpoint.server_tls,
        )
        self._tasks.start(self._listener.run, "trio_durable listener", self._failed)

    def lost(self) -> None:
        """The lease is over."""
        self._lease = None
        self.shard_map.forget()
        self._fed.clear()
        self._refuse_links()
        self._links.abort("the lease of this process is over")
        self._hand_over.adopted()

    def _refuse_links(self) -> None:
        """Let no other member connect, and so send a request that wouldn't be answered."""
        if self._listener is not None:
            self._listener.credentials = None

    # --- views -----------------------------------------------------------------------------------

    def _seen(self, view: View) -> None:
        """There is a new view. In the event loop."""
        lease = self._lease
        if (
            self._services.closed
            or lease is None
            or not lease.is_valid()
            or lease.holder not in view.members
        ):
            return
        before = self.shard_map.view
        self._links.follow(view.members)
        gained = self.shard_map.adopt(view)
        self._viewed.set()
        self._hand_over.adopted()
        given = [
            shard
            for shard in gained
            if before is not None
            and before.owners[shard] in view.members
            and before.terms[shard] + 1 >= view.terms[shard]  # and not by way of a third one
        ]
        owned = self.shard_map.owned
        if gained or not self._fed.issubset(owned):
            self._feed(given)  # by members that live, and have ended their claims
        elif before is not None and not before.members.keys() <= view.members.keys():
            self._on_feed()  # one that is gone may have sent messages and told no other of them
        if gained:
            logger.info(
                "%s: this process has %d more shards, %d in all",
                *(self._location, len(gained), len(owned)),
            )
        taken = set(gained).difference(given)
        if taken:
            taking_over = partial(self._take_over, lease, taken)
            self._services.tasks.start(taking_over, "trio_durable take-over", self._failed)

    async def _take_over(self, lease: Lease, shards: set[int]) -> None:
        """Deliver the alarms of shards whose former owner may have died with claims of them."""
        while lease.is_valid():
            try:
                await self._release_claims(shards)
                break
            except StorageFault as fault:
                logger.warning(
                    "%s: alarms of %d shards wait until the claims of their former owner can be "
                    "ended: %s",
                    *(self._location, len(shards), fault),
                )
            await anyio.sleep(_RETRY_SECONDS)
        if lease is self._membership.lease:
            self._feed(shards)

    def _feed(self, shards: Collection[int]) -> None:
        self._fed = self._fed.union(shards).intersection(self.shard_map.owned)
        self._membership.feed(self._fed)
        self._on_feed()

    def _stop_feeding(self, shards: Collection[int]) -> None:
        self._fed.difference_update(shards)
        self._membership.feed(self._fed)

    def delivers(self, object_id: str) -> bool:
        """True if alarms of an object are delivered here."""
        return self._membership.shard_of(object_id) in self._fed

    # --- links -----------------------------------------------------------------------------------

    def _peer_of(self, node_id: str) -> Peer | None:
        return self._links.peer(node_id)

    def _links_changed(self) -> None:
        self.shard_map.changed()

    def _me(self) -> Node:
        node_id = self._membership.lease.holder
        settings, shards = self._settings, len(self.shard_map.owned)
        return this_node(node_id, serves=settings.serve, shards=shards, group=settings.group)

    async def ask_all(self, request: str, arguments: Sequence[object], timeout: float) -> list[Any]:
        """Make a request of all other members that serve. See `Sharing.ask_all`."""
        members, me = self._links.members, self._membership.lease.holder
        others = [each.node_id for each in members.values() if each.serves and each.node_id != me]
        answers: list[Any] = []
        errors: list[Exception] = []

        async def ask_one(node_id: str) -> None:
            try:
                answers.extend(await self._ask(node_id, request, arguments, timeout))
            except Exception as error:  # noqa: BLE001  # raised below, without a group
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for node_id in others:
                tasks.start_soon(ask_one, node_id)
        if errors:
            raise errors[0]
        return answers

    async def _ask(
        self, node_id: str, request: str, arguments: Sequence[object], timeout: float
    ) -> list[Any]:
        """The answer of a member; nothing if it isn't there any more."""
        with anyio.fail_after(timeout):
            while True:
                while (peer := self._links.peer(node_id)) is None:
                    if node_id not in self._links.members:
                        return []
                    await anyio.sleep(_POLL_SECONDS)
                try:
                    return [await ask(peer, request, arguments, timeout)]
                except (NeverRan, OutcomeUnknown):
                    await anyio.sleep(_POLL_SECONDS)  # it may be gone; or holds already

    def nodes(self) -> list[Node]:
        """All members, those with most shards first."""
        view = self.shard_map.view
        if view is None:
            return [self._me()]
        shards = Counter(view.owners)
        return by_shards(
            node_of_member(member, self._settings.group, shards[member.node_id])
            for member in view.members.values()
        )

    # --- leaving ---------------------------------------------------------------------------------

    def retire(self) -> None:
        """Get no more shards: the runtime closes."""
        self._membership.retire()

    async def give_all(self) -> None:
        """Give all shards to others, if there are others. The member has retired."""
        await self._hand_over.give_all()

    async def leave(self) -> None:
        """Say goodbye to all members, and return when they have it, behind all answers."""
        self.shard_map.refuse_undecided()
        self._refuse_links()
        await self._answered()
        await self._links.leave()

    def forked(self) -> None:
        """The process is a forked one, and drops its copies of the sockets."""
        if self._listener is not None:
            self._listener.forked()
        self._links.forked()

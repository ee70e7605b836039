"""Storages of the chaos: where a round takes place, its processes, and the harms of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import attrs
import psycopg
from support.postgres import Server, wait_until
from support.proxy import Proxy

from trio_durable import Cluster
from trio_durable._cluster.node_note import UnreadableNote, read_note

from .members import BACKENDS

TTL = 1.0
_LONG_TTL = 6.0
_LOST_OBJECTS = 8
"""Objects of which a failover loses changes, if that many are changed meanwhile."""
_LOSING_WAITS = 20
_PATIENCE = 120.0
"""Seconds in which members must have begun, on a busy machine."""


@attrs.frozen
class Place:
    """The place of one process at a time: when it ends, another one comes."""

    number: int
    location: str
    """The storage, as this process names it."""
    backend: str
    cluster: Cluster
    callers: int
    epoch: float
    """Seconds in which the same objects are called. Histories stay short enough to be judged."""
    objects: int
    """Objects of each type in an epoch."""


@attrs.frozen
class Contents:
    """The contents of a storage."""

    objects: Sequence[tuple[str, str, str]]
    """Stored type name, id and state of each object."""
    alarms: frozenset[str]
    """The names of all alarms."""


@attrs.frozen
class Failover:
    """The promotion of a standby that lacks commits."""

    start: float
    """The time at which its primary still was there."""
    dead: float
    """The time at which it was there no more."""
    end: float
    """The time at which all leases that it has renewed are over."""
    kept: Contents
    """The contents of the standby before its promotion."""


@attrs.define
class Process:
    """A process that was started."""

    pid: int
    place: Place
    is_stopped: bool = False


Harm = Callable[[Process], None]
After = Callable[[float, Callable[[], None]], None]


class ChaosStorage(ABC):
    """The storage of all rounds of one run, which is empty at the beginning of each."""

    harms_per_second = 2.0
    calm_seconds = 0.0
    """How long calls go on without harms at the end of a round."""
    settled_seconds = 0.0
    """The part of these in which calls may still time out."""
    failover: Failover | None = None
    """The one of the round, if commits may be lost in it."""

    @abstractmethod
    def begin(self, folder: Path, draw: random.Random) -> list[Place]:
        """Begin a round, and return the places of its processes."""

    def wait_until_used(self) -> None:  # noqa: B027  # only some need to
        """Return when the processes have made what harms are to find."""

    def harms(self, after: After) -> Mapping[Harm, int]:
        """The harms that only this storage knows, with their weights.

        Args:
            after: Calls a function after so many seconds.
        """
        return {}

    def favourite(self) -> int | None:
        """The process id of the best victim, if there is one."""
        return None

    def recover(self) -> None:  # noqa: B027  # only some are harmed
        """Undo all harms."""

    def check_calm(self) -> None:  # noqa: B027  # likewise
        """Check that all objects have owners, at the end of the time without harms."""

    def check_end(self) -> None:  # noqa: B027  # likewise
        """Check that all processes have left."""

    @abstractmethod
    def contents(self) -> Contents:
        """Read all that is stored, as another program does."""

    def close(self) -> None:  # noqa: B027  # likewise
        """Remove what is left of it, except for the folders of rounds."""


class FileStorage(ChaosStorage):
    """An SQLite file."""

    def __init__(self) -> None:
        self._path = Path()

    def begin(self, folder: Path, draw: random.Random) -> list[Place]:
        """See `ChaosStorage.begin`."""
        self._path = folder / "chaos.db"
        self._draw = draw
        listen = draw.choice([None, None, "tcp://127.0.0.1:0"])
        return [
            Place(
                n,
                str(self._path),
                BACKENDS[n % 3],
                Cluster(serve=n != 3, listen=listen, ttl=TTL, max_calls=draw.choice([2, 1024])),
                callers=8,
                epoch=0.5,
                objects=6,
            )
            for n in range(4)
        ]

    def harms(self, after: After) -> Mapping[Harm, int]:
        """See `ChaosStorage.harms`."""
        return {self._remove_file: 1}

    def favourite(self) -> int | None:
        """The owner of the file."""
        with contextlib.suppress(UnreadableNote):
            note = read_note(self._beside("node"))
            return None if note is None else note.pid
        return None

    def _remove_file(self, _: Process) -> None:
        names = ["node"], ["socket"], ["lock"], ["node", "socket", "lock"]
        for name in self._draw.choice(names):
            self._beside(name).unlink(missing_ok=True)

    def _beside(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}-{name}")

    def contents(self) -> Contents:
        """See `ChaosStorage.contents`."""
        with closing(sqlite3.connect(self._path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            objects = connection.execute("SELECT type_name, object_id, state FROM durable_objects")
            alarms = connection.execute("SELECT name FROM durable_alarms")
            return Contents(objects.fetchall(), frozenset(name for (name,) in alarms))


class ServerStorage(ChaosStorage):
    """A PostgreSQL server of its own, with a schema for each round.

    Some processes reach it through a network that can be cut, and some reach each other so.
    """

    harms_per_second = 3.0
    calm_seconds = 6.0
    settled_seconds = 3.0

    def __init__(self) -> None:
        self._server = Server(max_connections=100, log_min_messages="warning")
        self._networks: dict[int, Network] = {}
        """By the number of the place that each belongs to."""
        self._stopped: list[int] = []
        self._schema = ""
        self._rounds = 0

    def begin(self, folder: Path, draw: random.Random) -> list[Place]:
        """See `ChaosStorage.begin`."""
        self._rounds += 1
        self._draw = draw
        self._schema = f"chaos_{self._rounds}"
        self._server.execute(f"CREATE SCHEMA {self._schema}")
        self._end_networks()
        server, unix = self._server, {"host": str(self._server.folder), "port": self._server.port}
        to_members = [folder / "0.socket", folder / "2.socket"]
        self._networks[0], self._networks[2] = map(Network, to_members)
        self._networks[1], self._networks[3] = Network(server.socket), Network(server.socket)
        hosts = {
            n: {"host": "127.0.0.1", "port": port}
            for n, port in (
                (1, self._networks[1].port),
                (2, server.port),
                (3, self._networks[3].port),
            )
        }
        clusters = {
            0: self._advertised(0, to_members[0]),
            2: self._advertised(2, to_members[1]),
            3: Cluster(listen="tcp://127.0.0.1:0"),
        }
        return [
            Place(
                n,
                self._location(n, hosts.get(n, unix)),
                BACKENDS[n % 3],
                attrs.evolve(
                    clusters.get(n, Cluster()),
                    serve=n != 4,
                    release=draw.choice([0, 0, 1]),
                    ttl=draw.choice([0.7, TTL, 1.4]),
                    max_calls=draw.choice([2, 1024]),
                ),
                callers=2,
                epoch=4.0,  # longer than all that a process without its lease may do
                objects=48,
            )
            for n in range(5)
        ]

    def _advertised(self, n: int, socket_path: Path) -> Cluster:
        address = f"tcp://127.0.0.1:{self._networks[n].port}"
        return Cluster(listen=f"unix://{socket_path}", advertise=address)

    def _location(self, n: int, host: Mapping[str, object]) -> str:
        options = {"options": f"-csearch_path={self._schema}", "application_name": f"chaos {n}"}
        return f"postgresql://postgres@/postgres?{urlencode({**host, **options})}"

    def harms(self, after: After) -> Mapping[Harm, int]:
        """See `ChaosStorage.harms`."""

        def kill_server(_: Process) -> None:
            if self._server.is_running and not self._stopped:
                self._server.stop(self._draw.choice([signal.SIGQUIT, signal.SIGKILL]))
                after(self._draw.choice([0.0, 0.2, 1.0]), self._start)

        def stop_server(_: Process) -> None:
            if self._server.is_running and not self._stopped:
                self._stopped = self._server.freeze()
                after(self._draw.choice([0.05, 0.3, 1.0, 2.0]), self._go_on)

        def cut_network(victim: Process) -> None:
            self._network(victim).cut()

        def freeze_network(victim: Process) -> None:
            network = self._network(victim)
            network.freeze()
            after(self._draw.choice([0.05, 0.3, 1.5, 2.0, 3.0]), network.thaw)

        return {
            self._end_connections: 4,
            kill_server: 1,
            stop_server: 1,
            cut_network: 2,
            freeze_network: 6,
        }

    def _end_connections(self, victim: Process) -> None:
        if self._server.is_running and not self._stopped:
            self._server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE application_name = 'chaos {victim.place.number}'"
            )

    def _network(self, victim: Process) -> Network:
        return self._networks.get(victim.place.number) or self._draw.choice(
            [*self._networks.values()]
        )

    def _end_networks(self) -> None:
        while self._networks:
            self._networks.popitem()[1].close()

    def _start(self) -> None:
        if not self._server.is_running:
            self._server.start_again()

    def _go_on(self) -> None:
        stopped, self._stopped = self._stopped, []
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def recover(self) -> None:
        """See `ChaosStorage.recover`."""
        self._go_on()
        self._start()
        for network in self._networks.values():
            network.thaw()

    def contents(self) -> Contents:
        """See `ChaosStorage.contents`."""
        return contents_of(self._server, self._schema)

    def check_calm(self) -> None:
        """See `ChaosStorage.check_calm`."""
        lost = f"""
            SELECT count(*), n.name, n.status FROM {self._schema}.durable_shards
            LEFT JOIN {self._schema}.durable_nodes AS n ON n.node_id = owner
            WHERE NOT coalesce(n.serves AND n.status = 'up', false) GROUP BY n.name, n.status
        """
        assert not (found := self._server.execute(lost)), found

    def check_end(self) -> None:
        """See `ChaosStorage.check_end`."""
        left = f"SELECT name, status FROM {self._schema}.durable_nodes"
        assert not (found := self._server.execute(left)), found

    def close(self) -> None:
        """See `ChaosStorage.close`."""
        self._end_networks()
        self._go_on()
        self._server.remove()


class StandbyStorage(ChaosStorage):
    """A server with a synchronous standby, which is promoted in the middle of each round.

    Each round has the server that the round before has left, with another standby.
    """

    harms_per_second = 3.0
    calm_seconds = 6.0
    settled_seconds = 3.0
    ttls: tuple[float, ...] = (TTL,)
    epoch = 4.0
    objects = 48

    def __init__(self) -> None:
        self._primary = self._new_server()
        self._standby: Server | None = None
        self._network: Network | None = None
        """The way of the standby to the primary."""
        self._schema = ""
        self._rounds = self._harms = 0

    def _new_server(self, standby_of: Server | None = None, **settings: str) -> Server:
        options: dict[str, Any] = {"max_connections": 100, "log_min_messages": "warning"}
        return Server(standby_of=standby_of, **options, **settings)

    def begin(self, folder: Path, draw: random.Random) -> list[Place]:
        """See `ChaosStorage.begin`."""
        self._rounds += 1
        self._harms = 0
        self._schema = f"chaos_{self._rounds}"
        primary = self._primary
        primary.execute(f"CREATE SCHEMA {self._schema}")
        network = self._network = Network(primary.socket)
        way = f"host=127.0.0.1 port={network.port} user=postgres"
        standby = self._standby = self._new_server(primary, primary_conninfo=way)
        self._follow()
        hosts = {
            "host": f"{primary.folder},{standby.folder}",
            "port": f"{primary.port},{standby.port}",
            "options": f"-csearch_path={self._schema}",
        }
        location = f"postgresql://postgres@/postgres?{urlencode(hosts)}"
        return [
            Place(
                n,
                location,
                BACKENDS[n % 3],
                Cluster(ttl=draw.choice(self.ttls)),
                callers=2,
                epoch=self.epoch,
                objects=self.objects,
            )
            for n in range(4)
        ]

    def _follow(self) -> None:
        """Let commits of the primary wait for the standby."""
        # Not in the copy, which is to wait for no standby when it has been promoted.
        self._primary.execute(
            "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"
        )
        wait_until(lambda: self._primary.execute(_SYNCHRONOUS) == [(1,)])

    def harms(self, after: After) -> Mapping[Harm, int]:
        """See `ChaosStorage.harms`."""

        def promote_standby(_: Process) -> None:
            """The standby gets nothing any more for a while, so nothing is acknowledged."""
            assert self._network is not None
            self._network.freeze()
            self._harms = -1_000_000
            after(0.5, lambda: self._promote(after))

        self._harms += 1
        is_due = self._harms > _HARMS_BEFORE_PROMOTION and self._standby is not None
        return {promote_standby: 1_000_000} if is_due else {}

    def _promote(self, after: After) -> None:
        """Lose the primary for ever."""
        former, standby, network = self._primary, self._standby, self._network
        assert standby is not None
        assert network is not None
        start = time.monotonic()
        for pid in former.freeze():  # all at once, as when a machine loses its power
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        former.stop(signal.SIGKILL)
        network.close()
        self._network = None
        self._lost_primary(standby, start)
        standby.promote()
        self._primary, self._standby = standby, None
        former.remove()

    def _lost_primary(self, standby: Server, start: float) -> None:
        """Look at the standby, before its promotion."""

    def contents(self) -> Contents:
        """See `ChaosStorage.contents`."""
        return contents_of(self._primary, self._schema)

    def check_calm(self) -> None:
        """See `ChaosStorage.check_calm`."""
        assert self._standby is None, "it was not promoted"

    def close(self) -> None:
        """See `ChaosStorage.close`."""
        if self._network is not None:
            self._network.close()
        for server in (self._primary, self._standby):
            if server is not None:
                server.remove()


class LossyStorage(StandbyStorage):
    """The same with an asynchronous standby, which lacks what is acknowledged for half a second.

    Leases may be longer than it takes to promote it, so a member may find itself on another server
    with its lease, and with objects in memory that the server has never seen so.
    """

    calm_seconds = 9.0
    settled_seconds = 6.0
    ttls = (TTL, _LONG_TTL)
    epoch = 12.0  # so the same objects are called before and after
    objects = 10

    def begin(self, folder: Path, draw: random.Random) -> list[Place]:
        """See `ChaosStorage.begin`."""
        self.failover = None
        self._replayed = ""
        self._waits = _LOSING_WAITS
        return super().begin(folder, draw)

    def _follow(self) -> None:
        """Let commits of the primary wait for nothing."""

    def wait_until_used(self) -> None:
        """See `ChaosStorage.wait_until_used`."""
        wait_until(self._has_objects, timeout=_PATIENCE)

    def _has_objects(self) -> bool:
        assert self._standby is not None
        try:
            return bool(contents_of(self._standby, self._schema).objects)
        except psycopg.errors.UndefinedTable:
            return False

    def _promote(self, after: After) -> None:
        """Lose the primary for ever, once it has what the standby lacks."""
        assert self._standby is not None
        lost = {*contents_of(self._primary, self._schema).objects}
        lost -= {*contents_of(self._standby, self._schema).objects}
        if len(lost) < _LOST_OBJECTS and self._waits:
            self._waits -= 1
            after(0.1, lambda: self._promote(after))
        else:
            super()._promote(after)

    def _lost_primary(self, standby: Server, start: float) -> None:
        dead = time.monotonic()
        self._replayed = self._last_replayed(standby)
        kept = contents_of(standby, self._schema)
        self.failover = Failover(start, dead, dead + max(self.ttls), kept)

    def check_calm(self) -> None:
        """See `ChaosStorage.check_calm`."""
        super().check_calm()
        assert self._replayed == self._last_replayed(self._primary), "the standby got more"

    def _last_replayed(self, standby: Server) -> str:
        """The end of what it has got as a standby, also after its promotion."""
        [(position,)] = standby.execute("SELECT pg_last_wal_replay_lsn()::text")
        return str(position)


_SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
_HARMS_BEFORE_PROMOTION = 1


def contents_of(server: Server, schema: str) -> Contents:
    """What is stored in a schema of a server."""
    objects = f"SELECT type_name, object_id, state::text FROM {schema}.durable_objects"
    alarms = f"SELECT name FROM {schema}.durable_alarms"
    with psycopg.connect(server.conninfo(dbname="postgres")) as connection:
        return Contents(
            connection.execute(objects.encode()).fetchall(),
            frozenset(name for (name,) in connection.execute(alarms.encode())),
        )


class Network:
    """The way to a Unix socket, as a process: where that is stopped, nothing gets through.

    Args:
        target: The socket.
    """

    def __init__(self, target: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            self._pid = os.fork()
            if not self._pid:
                _pass_on(listener, target)

    def cut(self) -> None:
        os.kill(self._pid, signal.SIGUSR1)

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _pass_on(listener: socket.socket, target: Path) -> NoReturn:
    """Be a network for as long as the parent lives."""
    try:
        parent = os.getppid()
        proxy = Proxy(target, listener)
        signal.signal(signal.SIGUSR1, lambda *_: proxy.cut())
        while os.getppid() == parent:
            time.sleep(1)
    finally:
        os._exit(0)


STORAGES: dict[str, type[ChaosStorage]] = {
    "sqlite": FileStorage,
    "postgres": ServerStorage,
    "standby": StandbyStorage,
    "lossy": LossyStorage,
}


@contextlib.contextmanager
def storage_of(name: str) -> Iterator[ChaosStorage]:
    """The storage of that name, for a run."""
    storage = STORAGES[name]()
    try:
        yield storage
    finally:
        storage.close()

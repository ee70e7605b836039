"""Settings of a cluster: the runtimes of several processes on one storage."""

from __future__ import annotations

import attrs

from .._durations import Duration, interval_seconds, positive_int
from .frames import check_limits
from .tls import ClusterTLS

DEFAULT_GROUP = "default"
DEFAULT_TTL = 5.0
DEFAULT_MAX_CALLS = 1024
DEFAULT_MAX_FRAME = 16 * 1024 * 1024


def _ttl(value: Duration) -> float:
    return interval_seconds(value, "ttl")


@attrs.frozen(kw_only=True)
class Cluster:
    """Settings of a runtime that shares its storage with the runtimes of other processes.

    ``DurableRuntime(storage, cluster=True)`` has the defaults. On an SQLite file, the runtime that
    holds the file's lock has all objects, and the others call it; when it ends, one of them takes
    over. Each process names the same file.

    On a PostgreSQL database, the members of a group divide the objects, and call each other for
    those of others. When one leaves or dies the others take its objects over. ``advertise``,
    ``tls``, ``group`` and ``release`` are for these; on a file the first three are refused.

    Args:
        listen: The address at which this process is called: ``unix:///path``, or
            ``tcp://host:port``, with port 0 for any that is free. By default a socket that only
            processes of this machine reach. With SQLite it must be one of this machine.
        advertise: The address at which the others reach this process, where that isn't ``listen``:
            such as ``tcp://10.0.0.5:7400`` for one that listens at ``tcp://0.0.0.0:7400``.
        tls: Certificates for connections over TCP, see `ClusterTLS`.
        insecure: Whether connections beyond this machine may be without TLS, as in a network that
            encrypts them itself. Both sides prove a secret in any case.
        group: The members that share objects. Processes of different groups on one PostgreSQL
            database have nothing to do with each other, and must not use the same objects.
        release: A number that grows with the releases of the application, where the schema versions
            of the object types don't tell old from new. Objects aren't given to an older release
            while a newer one is up.
        serve: Whether objects may live in this process. False is for one that only calls.
        ttl: How long a process of another machine may be silent before its objects are taken over,
            and a connection before it counts as lost; a ``timedelta`` or seconds. A sign of life is
            sent four times as often. The death of a process of the same machine is noticed at once.
        max_calls: The number of calls that another process may have under way here. More wait with
            their callers.
        max_frame: The largest message that this process takes, in bytes; it bounds arguments and
            replies.

    Raises:
        ValueError: A setting is invalid.
    """

    listen: str | None = None
    advertise: str | None = None
    tls: ClusterTLS | None = None
    insecure: bool = False
    group: str = DEFAULT_GROUP
    release: int = 0
    serve: bool = True
    ttl: float = attrs.field(default=DEFAULT_TTL, converter=_ttl)
    max_calls: int = DEFAULT_MAX_CALLS
    max_frame: int = DEFAULT_MAX_FRAME

    def __attrs_post_init__(self) -> None:
        """Check the settings."""
        check_limits(
            positive_int(self.max_calls, "max_calls"), positive_int(self.max_frame, "max_frame")
        )
        if not isinstance(self.serve, bool):
            raise ValueError(f"serve must be True or False, not {self.serve!r:.60}")
        for name in ("listen", "advertise"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise ValueError(f"{name} must be an address, not {value!r:.60}")
        if not isinstance(self.insecure, bool):
            raise ValueError(f"insecure must be True or False, not {self.insecure!r:.60}")
        if not (isinstance(self.group, str) and 0 < len(self.group) <= 100):
            raise ValueError(f"group must be a name of 1 to 100 characters, not {self.group!r:.60}")
        if isinstance(self.release, bool) or not isinstance(self.release, int) or self.release < 0:
            raise ValueError(f"release must be 0 or more, not {self.release!r:.60}")
        if not (self.tls is None or isinstance(self.tls, ClusterTLS)):
            raise ValueError(f"tls must be a ClusterTLS, not {self.tls!r:.60}")


class Command(Cluster):
    """Settings of a command, which joins the runtimes that are open and owns nothing.

    It may also join a runtime on an SQLite file that isn't in a cluster.
    """

    def __init__(self, *, group: str = DEFAULT_GROUP, tls: ClusterTLS | None = None) -> None:
        super().__init__(serve=False, group=group, tls=tls)


def check_file_settings(settings: Cluster) -> None:
    """Check the settings of processes that share an SQLite file.

    Raises:
        ValueError: One would have no effect.
    """
    defaults = Cluster()
    for name in ("advertise", "tls", "group"):
        if getattr(settings, name) != getattr(defaults, name):
            raise ValueError(
                f"Cluster({name}=…) is for members on a PostgreSQL database; the processes of an "
                "SQLite file are on one machine, and all of them share its objects"
            )


def cluster_settings(cluster: object) -> Cluster | None:
    """The settings that a user gave as ``cluster``.

    Raises:
        ValueError: It is no bool and no `Cluster`.
    """
    if cluster is None or cluster is False:
        return None
    if cluster is True:
        return Cluster()
    if not isinstance(cluster, Cluster):
        raise ValueError(f"cluster must be True, False or a Cluster, not {cluster!r:.60}")
    return cluster

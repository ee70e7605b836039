"""Settings of a cluster: the runtimes of several processes on one storage."""

from __future__ import annotations

import attrs

from .._durations import Duration, interval_seconds, positive_int
from .frames import check_limits

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

    Args:
        listen: The address at which this process is called: ``unix:///path``, or
            ``tcp://127.0.0.1:port``. By default a socket with the name of the file and
            ``-socket``.
        serve: Whether objects may live in this process. False is for one that only calls.
        ttl: How long a connection may be silent before it counts as lost, a ``timedelta`` or
            seconds. Idle connections carry a message four times as often. The death of a process
            is noticed at once.
        max_calls: The number of calls that another process may have under way here. More wait with
            their callers.
        max_frame: The largest message that this process takes, in bytes; it bounds arguments and
            replies.

    Raises:
        ValueError: A setting is invalid.
    """

    listen: str | None = None
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
        if not (self.listen is None or isinstance(self.listen, str)):
            raise ValueError(f"listen must be an address, not {self.listen!r:.60}")


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

"""Settings of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .._clock import Clock
from .._cluster.settings import Cluster
from .._eventloop.runner import Runner
from .._telemetry.notifier import Observer
from ..scheduler.oban import ObanScheduler
from ..storage import SharedStorage, Storage

if TYPE_CHECKING:
    from ..storage.postgres import PostgresStorage


@attrs.frozen
class ClusterOnFile:
    """The settings of a cluster, and the file of its storage."""

    settings: Cluster
    path: Path


@attrs.frozen
class ClusterOfMembers:
    """The settings of a cluster on a database that its members share."""

    settings: Cluster
    storage: SharedStorage
    types: Callable[[], Mapping[str, int]]
    """Returns the schema versions of the object types, by stored name."""


@attrs.frozen
class ObanOnPostgres:
    """The settings of a queue of Oban, and the database of its jobs."""

    settings: ObanScheduler
    storage: PostgresStorage


@attrs.frozen
class Settings:
    """The arguments of a `DurableRuntime`, checked; durations in seconds."""

    storage: Storage
    runner: type[Runner]
    clock: Clock | None
    instruments: tuple[Observer, ...]
    max_resident: int
    polling_interval: float
    claim_ttl: float
    grace_period: float
    close_timeout: float
    cluster: ClusterOnFile | ClusterOfMembers | None = None
    oban: ObanOnPostgres | None = None
    """Where alarms are jobs of Oban; None for the timing wheel."""
    commands_at: Path | None = None
    """The file beside which it listens for commands; None if it doesn't."""

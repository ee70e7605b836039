"""Checks of a simulation's class attributes, made before any rule or model is built from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Protocol

from ..._api.durable_object import DurableObject
from ..._durations import Duration, seconds
from ..._errors import DefinitionError
from ..._keys import id_problem, tenant_problem

_MIN_LONGEST_DELAY_SECONDS = 120.0
_MAX_JUMP_SECONDS = timedelta(days=36525).total_seconds()


class Attributes(Protocol):
    """The class attributes of a `Simulation` that are checked here."""

    objects: ClassVar[Sequence[type[DurableObject]]]
    ids: ClassVar[Sequence[str]]
    tenants: ClassVar[Sequence[str]]
    shared: ClassVar[Sequence[type[DurableObject]]]
    tenant_drops: ClassVar[bool]
    crossings: ClassVar[Sequence[str]]
    delays: ClassVar[Sequence[Duration]]
    clock_jumps: ClassVar[Sequence[Duration]]
    starts_at: ClassVar[datetime]
    polling_interval: ClassVar[Duration | None]


def check_attributes(cls: type[Attributes]) -> None:
    """Check the attributes that concern neither handlers nor models, which have their own checks.

    Raises:
        DefinitionError: An attribute has an invalid value.
    """
    owner = cls.__qualname__
    names = ("objects", "ids", "tenants", "shared", "crossings", "delays", "clock_jumps")
    for name in names:
        _check_sequence(owner, name, getattr(cls, name))
    for object_id in cls.ids:
        problem = id_problem(object_id)
        if problem is not None:
            raise DefinitionError(owner, "ids", f"{object_id!r}: {problem}")
    if not cls.ids:
        raise DefinitionError(owner, "ids", "must not be empty: no object could be called")
    _check_tenants(cls)
    if not cls.delays:
        raise DefinitionError(owner, "delays", "must not be empty: no time could pass")
    for delay in cls.delays:
        _checked_seconds(owner, "delays", delay)
    for jump in cls.clock_jumps:
        checked_jump(jump, lambda problem: DefinitionError(owner, "clock_jumps", problem))
    if not isinstance(cls.starts_at, datetime) or cls.starts_at.utcoffset() is None:
        raise DefinitionError(owner, "starts_at", "must be a datetime with a time zone")
    interval = cls.polling_interval
    if interval is not None and not _checked_seconds(owner, "polling_interval", interval):
        raise DefinitionError(owner, "polling_interval", "must be more than 0")


def _check_tenants(cls: type[Attributes]) -> None:
    owner = cls.__qualname__
    for name in cls.tenants:
        problem = tenant_problem(name)
        if problem is not None:
            raise DefinitionError(owner, "tenants", f"{name!r}: {problem}")
    if not cls.tenants:
        for attribute in ("shared", "tenant_drops", "crossings"):
            if getattr(cls, attribute):
                raise DefinitionError(owner, attribute, "needs tenants, and there are none")
    for each in cls.shared:
        if each not in cls.objects:
            raise DefinitionError(owner, "shared", f"{each!r:.60} is not in objects")
    if cls.objects and set(cls.shared) == set(cls.objects):
        raise DefinitionError(owner, "shared", "leaves no class to tenants")


def checked_jump(jump: object, refused: Callable[[str], Exception]) -> float:
    """The seconds by which a clock is set, which may be negative.

    Raises:
        Exception: What ``refused`` returns for the problem, if it is no duration.
    """
    found = jump.total_seconds() if isinstance(jump, timedelta) else jump
    if (
        isinstance(found, bool)
        or not isinstance(found, (int, float))
        or not abs(found) < _MAX_JUMP_SECONDS
    ):
        raise refused(f"must be seconds or a timedelta, up to a hundred years, not {jump!r:.60}")
    return float(found)


def polling_interval(simulation: Attributes) -> float:
    """The polling interval of the simulation's runtimes, in seconds."""
    if simulation.polling_interval is not None:
        return seconds(simulation.polling_interval, "polling_interval")
    delays = [seconds(delay, "delays") for delay in simulation.delays]
    return max([_MIN_LONGEST_DELAY_SECONDS, *delays]) / 4


def _check_sequence(owner: str, name: str, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DefinitionError(owner, name, f"must be a tuple or a list, not {value!r:.60}")


def _checked_seconds(owner: str, name: str, value: Duration) -> float:
    try:
        return seconds(value, name)
    except ValueError as error:
        problem = str(error).removeprefix(f"{name} ")
        raise DefinitionError(owner, name, problem) from None

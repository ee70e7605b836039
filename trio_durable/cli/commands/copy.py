"""``trio-durable copy``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import zip_longest
from typing import TypeVar

import attrs
import click

from ..._clock import SystemClock
from ..._keys import AlarmKey, ObjectKey
from ...storage import AlarmRow, ObjectRow, Reader, SQLiteStorage, Writer
from ..errors import CommandError
from ..output import console, printable, progress_bar, quantity
from ..storage.batches import batches
from ..storage.open import open_reader, open_writer, resolve_storage
from ..storage.paging import existing_alarms, is_empty, iter_alarms, iter_objects, select_tenants
from ..storage.totals import Total
from ..transfer.format import unrepresentable_instant
from ..transfer.restore import can_restore, restore_alarms, restore_objects

R = TypeVar("R", ObjectRow, AlarmRow)
K = TypeVar("K", ObjectKey, AlarmKey)

Advance = Callable[[int], None]


@click.command("copy")
@click.argument("source")
@click.argument("target")
@click.option("--tenant", "-t", metavar="NAME", help="Only what it has; else all there is.")
@click.option("--resume", is_flag=True, help="Go on with a copy that was interrupted.")
def copy_(source: str, target: str, tenant: str | None, resume: bool) -> int:
    """Move house: copy all objects and alarms from one storage to another.

    SOURCE and TARGET are paths of SQLite files or URLs. The target must be empty,
    or hold what an interrupted copy left there. At the end all rows of both are
    compared, one by one; exit status 1 if something differs.

    Stop whatever uses the source first. An SQLite file that a runtime has open is
    refused; a PostgreSQL server can't tell.

    \b
    Examples:
      trio-durable copy app.db postgresql://app@db.example.com/app
      trio-durable copy postgresql://app@db.example.com/app sqlite:///app.db
    """
    old = resolve_storage(source, what="SOURCE")
    new = resolve_storage(target, "normal", what="TARGET")
    if old.location == new.location:
        raise CommandError(f"SOURCE and TARGET are the same, {old.location}; name two storages")
    # Whoever holds the writing side of an SQLite file keeps others from changing it meanwhile. For
    # others to read is enough.
    with (
        open_reader(old, tenant) as from_,
        open_writer(old) if isinstance(old, SQLiteStorage) else nullcontext(),
        progress_bar(console(stderr=True)) as progress,
    ):
        tenants = select_tenants(from_, tenant)
        now = SystemClock().now()
        # Found now, while the target is as it was.
        for name in tenants:
            for row in iter_alarms(from_, now, None, name):
                if not can_restore(row):
                    raise unrepresentable_instant(row.alarm.key)
        total = [Total.of(from_.summarize(now, name)) for name in tenants]
        task = progress.add_task("copying", total=2 * sum(s.objects + s.alarms for s in total))

        def advance(count: int) -> None:
            progress.advance(task, count)

        with open_writer(new) as writer, open_reader(new) as to:
            if not (resume or is_empty(to)):
                raise CommandError(
                    f"{new.location} isn't empty; name an empty storage, or go on with a copy that "
                    "was interrupted by --resume"
                )
            copy = _Copy(from_, to, now, resume, advance)
            last = copy.all_but_the_last(tenants, writer)
        with open_writer(resolve_storage(target, "full", what="TARGET")) as writer:
            # Synced, and with it all that was written before.
            copy.write(last, writer)
        progress.update(task, description="comparing")
        with open_reader(new) as to:
            difference = next(copy.differences(tenants, to), None)
    if difference is not None:
        click.echo(printable(f"trio-durable copy: {difference}"), err=True)
        return 1
    click.echo(
        f"Copied {quantity(copy.objects, 'object')} and {quantity(copy.alarms, 'alarm')}, and "
        "found both storages equal, row by row."
    )
    return 0


@attrs.define
class _Batch:
    objects: list[ObjectRow] = attrs.field(factory=list)
    alarms: list[AlarmRow] = attrs.field(factory=list)


@attrs.define
class _Copy:
    """Brings rows from one storage to another."""

    _old: Reader
    _new: Reader
    _now: int
    _resume: bool
    _advance: Advance
    objects: int = 0
    alarms: int = 0

    def all_but_the_last(self, tenants: Iterable[str], writer: Writer) -> _Batch:
        """Write everything but the last batch, and return that."""
        last = _Batch()
        for batch in self._batches(tenants):
            self.write(last, writer)
            last = batch
        return last

    def write(self, batch: _Batch, writer: Writer) -> None:
        """Write a batch.

        Raises:
            StorageFault: It, or some of it, can't be.
        """
        if batch.objects:
            restore_objects(writer, batch.objects, {})
        if batch.alarms:
            restore_alarms(writer, batch.alarms, self._now)
        self.objects += len(batch.objects)
        self.alarms += len(batch.alarms)

    def _batches(self, tenants: Iterable[str]) -> Iterator[_Batch]:
        """What is to be written, without what is there already."""
        for tenant in tenants:
            for objects in batches(iter_objects(self._old, None, tenant), _size_of_object):
                self._advance(len(objects))
                if self._resume:
                    stored = self._new.load([row.key for row in objects])
                    pairs = zip(objects, stored, strict=True)
                    objects = [row for row, found in pairs if found is None]
                if objects:
                    yield _Batch(objects=objects)
            for alarms in batches(iter_alarms(self._old, self._now, None, tenant), _size_of_alarm):
                self._advance(len(alarms))
                if self._resume:
                    keys = [row.alarm.key for row in alarms]
                    present = existing_alarms(self._new, keys, self._now)
                    alarms = [row for row in alarms if row.alarm.key not in present]
                if alarms:
                    yield _Batch(alarms=alarms)

    def differences(self, tenants: Iterable[str], to: Reader) -> Iterator[str]:
        """What isn't the same in both storages, in words."""
        for tenant in tenants:
            yield from self._compare(
                iter_objects(self._old, None, tenant), iter_objects(to, None, tenant), _of_object
            )
            yield from self._compare(
                iter_alarms(self._old, self._now, None, tenant),
                iter_alarms(to, self._now, None, tenant),
                _of_alarm,
            )

    def _compare(
        self, old: Iterator[R], new: Iterator[R], of: Callable[[R], tuple[K, object]]
    ) -> Iterator[str]:
        # Both in the order of their names, so of two that aren't of one name the first is missing.
        for row, copy in zip_longest(old, new):
            self._advance(1)
            there = [of(each) for each in (row, copy) if each is not None]
            if len(there) < 2 or there[0] != there[1]:
                key = min((key for key, _ in there), key=lambda key: (key.type_name, key.object_id))
                yield f"{key} isn't the same in both; is anything using them? Start over"


def _of_object(row: ObjectRow) -> tuple[ObjectKey, object]:
    return row.key, (row.state, row.updated_at)


def _of_alarm(row: AlarmRow) -> tuple[AlarmKey, object]:
    return row.alarm.key, (row.alarm, row.available_at)


def _size_of_object(row: ObjectRow) -> int:
    return len(row.state)


def _size_of_alarm(row: AlarmRow) -> int:
    return len(row.alarm.payload or b"")

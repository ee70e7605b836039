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
from ..._persistence.restoring import can_restore, restore_alarms
from ...storage import AlarmRow, ObjectRow, Reader, SQLiteStorage, Writer
from ..errors import CommandError
from ..output import console, printable, progress_bar, quantity
from ..storage.batches import batches
from ..storage.open import open_reader, open_writer, resolve_storage
from ..storage.paging import existing_alarms, is_empty, iter_alarms, iter_objects, select_tenants
from ..storage.restore import restore_objects
from ..storage.totals import Total
from ..transfer.format import unrepresentable_instant

R = TypeVar("R", ObjectRow, AlarmRow)
K = TypeVar("K", ObjectKey, AlarmKey)

Advance = Callable[[int], None]


@click.command("copy")
@click.argument("source")
@click.argument("target")
@click.option("--tenant", "-t", metavar="NAME", help="Copy only this tenant; by default, all.")
@click.option("--resume", is_flag=True, help="Continue an interrupted copy.")
def copy_(source: str, target: str, tenant: str | None, resume: bool) -> int:
    """Copy all objects and alarms from one storage to another.

    SOURCE and TARGET are paths of SQLite files or URLs. The target must be empty,
    or with --resume contain an interrupted copy. At the end all rows of both are
    compared; exit status 1 if they differ.

    Stop all runtimes on the source first. An SQLite file that a runtime has open
    is rejected; in PostgreSQL an open runtime is not detected.

    \b
    Examples:
      trio-durable copy app.db postgresql://app@db.example.com/app
      trio-durable copy postgresql://app@db.example.com/app sqlite:///app.db
    """
    old = resolve_storage(source, option="SOURCE")
    new = resolve_storage(target, "normal", option="TARGET")
    if old.location == new.location:
        raise CommandError(f"SOURCE and TARGET are the same, {old.location}; name two storages")
    # The writer of an SQLite file keeps all others from changing it during the copy. PostgreSQL has
    # no such lock, and a role that may only read can copy from it. No other storage is locked:
    # opening its writer may change it, and need not exclude others. The comparison at the end
    # reports the changes of others.
    with (
        open_reader(old, tenant) as source_reader,
        open_writer(old) if isinstance(old, SQLiteStorage) else nullcontext(),
        progress_bar(console(stderr=True)) as progress,
    ):
        tenants = select_tenants(source_reader, tenant)
        now = SystemClock().now()
        # Checked before the target is changed.
        for name in tenants:
            for row in iter_alarms(source_reader, now, None, name):
                if not can_restore(row):
                    raise unrepresentable_instant(row.alarm.key)
        total = [Total.of(source_reader.summarize(now, name)) for name in tenants]
        task = progress.add_task("copying", total=2 * sum(s.objects + s.alarms for s in total))

        def advance(count: int) -> None:
            progress.advance(task, count)

        with open_writer(new) as writer, open_reader(new) as target_reader:
            if not (resume or is_empty(target_reader)):
                raise CommandError(
                    f"{new.location} isn't empty; name an empty storage, or continue an "
                    "interrupted copy with --resume"
                )
            copy = StorageCopy(source_reader, target_reader, now, resume, advance)
            last = copy.all_but_the_last(tenants, writer)
        with open_writer(resolve_storage(target, "full", option="TARGET")) as writer:
            # This commit is synced, and all earlier ones with it.
            copy.write(last, writer)
        progress.update(task, description="comparing")
        with open_reader(new) as target_reader:
            difference = next(copy.differences(tenants, target_reader), None)
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
class StorageCopy:
    """Copies rows from one storage to another."""

    _old: Reader
    _new: Reader
    _now: int
    _resume: bool
    _advance: Advance
    objects: int = 0
    alarms: int = 0

    def all_but_the_last(self, tenants: Iterable[str], writer: Writer) -> _Batch:
        """Write all batches but the last, and return the last."""
        last = _Batch()
        for batch in self._batches(tenants):
            self.write(last, writer)
            last = batch
        return last

    def write(self, batch: _Batch, writer: Writer) -> None:
        """Write a batch.

        Raises:
            StorageFault: A row can't be written.
        """
        if batch.objects:
            restore_objects(writer, batch.objects, {})
        if batch.alarms:
            restore_alarms(writer, batch.alarms, self._now)
        self.objects += len(batch.objects)
        self.alarms += len(batch.alarms)

    def _batches(self, tenants: Iterable[str]) -> Iterator[_Batch]:
        """Batches to write. A resumed copy leaves out the rows that the target has."""
        for tenant in tenants:
            for objects in batches(iter_objects(self._old, None, tenant), _object_size):
                self._advance(len(objects))
                if self._resume:
                    stored = self._new.load([row.key for row in objects])
                    pairs = zip(objects, stored, strict=True)
                    objects = [row for row, found in pairs if found is None]
                if objects:
                    yield _Batch(objects=objects)
            for alarms in batches(iter_alarms(self._old, self._now, None, tenant), _alarm_size):
                self._advance(len(alarms))
                if self._resume:
                    keys = [row.alarm.key for row in alarms]
                    present = existing_alarms(self._new, keys, self._now)
                    alarms = [row for row in alarms if row.alarm.key not in present]
                if alarms:
                    yield _Batch(alarms=alarms)

    def differences(self, tenants: Iterable[str], copy: Reader) -> Iterator[str]:
        """A message for each object or alarm that differs between the storages."""
        for tenant in tenants:
            yield from self._compare(
                iter_objects(self._old, None, tenant),
                iter_objects(copy, None, tenant),
                _compared_object,
            )
            yield from self._compare(
                iter_alarms(self._old, self._now, None, tenant),
                iter_alarms(copy, self._now, None, tenant),
                _compared_alarm,
            )

    def _compare(
        self, old: Iterator[R], new: Iterator[R], of: Callable[[R], tuple[K, object]]
    ) -> Iterator[str]:
        # Both are sorted by name, so the first of two different names is missing in one of them.
        for row, copy in zip_longest(old, new):
            self._advance(1)
            found = [of(each) for each in (row, copy) if each is not None]
            if len(found) < 2 or found[0] != found[1]:
                key = min((key for key, _ in found), key=lambda key: (key.type_name, key.object_id))
                yield (
                    f"{key} differs between the storages; stop all programs that use them, and "
                    "start over"
                )


def _compared_object(row: ObjectRow) -> tuple[ObjectKey, object]:
    return row.key, (row.state, row.updated_at)


def _compared_alarm(row: AlarmRow) -> tuple[AlarmKey, object]:
    return row.alarm.key, (row.alarm, row.available_at)


def _object_size(row: ObjectRow) -> int:
    return len(row.state)


def _alarm_size(row: AlarmRow) -> int:
    return len(row.alarm.payload or b"")

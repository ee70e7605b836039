"""Reading of exports: a file is checked as a whole first, and can then be read repeatedly.

A checked file has only lines that can be stored exactly, in the order of an export, and none is
missing. Because of the order, duplicates are found in constant memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import attrs
import orjson

from ...storage import AlarmRow, ObjectRow
from ..errors import CommandError
from ..output import quantity
from ..storage import exact_json
from ..storage.batches import batches
from .format import EndLine, decode_line, is_header


@contextmanager
def ensure_seekable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """``file`` itself if it is seekable, or a temporary copy of it."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile(prefix="trio_durable-import-") as copy:
        shutil.copyfileobj(file, copy)
        yield copy


def check_export(
    file: IO[bytes], name: str, tenant: str | None, advance: Callable[[int], None]
) -> None:
    """Check a whole export.

    Args:
        file: The export.
        name: The name of the file, for messages.
        tenant: A tenant that must have rows in it; None if there is no such condition.
        advance: Called with the number of bytes of each line.

    Raises:
        CommandError: A line is invalid, or the tenant has no rows.
    """
    checker = _ExportChecker(tenant)
    file.seek(0)
    number = 0
    for number, line in enumerate(file, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise CommandError(
                f"{name}, line {number}: not UTF-8 text; name a file that `trio-durable export` "
                "wrote"
            ) from None
        try:
            checker.take(exact_json.parse(text))
        except ValueError as error:
            raise CommandError(
                f"{name}, line {number}: {error}; fix the file, or export again"
            ) from None
        advance(len(line))
    if not checker.has_ended:
        raise CommandError(
            f"{name}, line {number + 1}: the end is missing; the file is truncated, or not "
            "an export: export again"
        )
    if not (tenant is None or checker.has_wanted):
        raise CommandError(
            f"{name} has no rows of tenant {tenant}; check the name, or leave out -t"
        )


class _ExportChecker:
    """Checks the lines of an export, one by one."""

    def __init__(self, wanted: str | None) -> None:
        self.has_ended = False
        self.has_wanted = False
        self._wanted = wanted
        self._has_begun = False
        self._objects = self._alarms = 0
        self._last: tuple[bytes, ...] = ()

    def take(self, data: object) -> None:
        """Check the next line.

        Raises:
            ValueError: It is invalid in itself, or in this place.
        """
        if not self._has_begun:
            if not is_header(data):
                raise ValueError("not the first line of an export; the header is missing")
            self._has_begun = True
            return
        line = decode_line(data)
        if self.has_ended:
            raise ValueError("the line is after the end")
        if isinstance(line, EndLine):
            if line != EndLine(self._objects, self._alarms):
                raise ValueError(
                    f"it says {quantity(line.objects, 'object')} and "
                    f"{quantity(line.alarms, 'alarm')}, but the file has {self._objects:,} and "
                    f"{self._alarms:,}; lines are missing or were added"
                )
            self.has_ended = True
            return
        self._check_order(line)
        if isinstance(line, ObjectRow):
            self._objects += 1
        else:
            self._alarms += 1

    def _check_order(self, line: ObjectRow | AlarmRow) -> None:
        key = line.key if isinstance(line, ObjectRow) else line.alarm.key
        names = [key.type_name, key.object_id]
        if isinstance(line, AlarmRow):
            names.append(line.alarm.key.name)
        kind = b"0" if isinstance(line, ObjectRow) else b"1"
        self.has_wanted |= key.tenant == self._wanted
        place = (key.tenant.encode(), kind, *(name.encode() for name in names))
        if place == self._last:
            raise ValueError(f"{key} is there twice")
        if place < self._last:
            raise ValueError(
                f"{key} is not in order; lines are sorted by tenant, objects before alarms, then "
                "by type, id and name"
            )
        self._last = place


@attrs.frozen
class Chunk:
    """Some rows of an export, each with the number of its line."""

    objects: list[tuple[int, ObjectRow]]
    alarms: list[tuple[int, AlarmRow]]


def read_chunks(
    file: IO[bytes], tenant: str | None, advance: Callable[[int], None]
) -> Iterator[Chunk]:
    """Read the rows of a checked export, in chunks that fit into memory.

    Args:
        file: The export.
        tenant: The tenant whose rows are read; None for all rows.
        advance: Called with the number of bytes of each line.
    """
    for batch in batches(_rows(file, tenant, advance), lambda row: row[2]):
        yield Chunk(
            [(number, line) for number, line, _ in batch if isinstance(line, ObjectRow)],
            [(number, line) for number, line, _ in batch if isinstance(line, AlarmRow)],
        )


def _rows(
    file: IO[bytes], tenant: str | None, advance: Callable[[int], None]
) -> Iterator[tuple[int, ObjectRow | AlarmRow, int]]:
    """Rows with the number and the length of their lines."""
    file.seek(0)
    for number, text in enumerate(file, 1):
        advance(len(text))
        # orjson is fast and lenient; the line was checked by the strict parser before.
        line = None if number == 1 else decode_line(orjson.loads(text))
        if line is None or isinstance(line, EndLine):
            continue
        key = line.key if isinstance(line, ObjectRow) else line.alarm.key
        if tenant in (None, key.tenant):
            yield number, line, len(text)

"""An export to read: checked once as a whole, and then read as often as need be.

Checked means: each line can be stored exactly as it says, they are in the order in which they are
exported, which finds what is there twice in constant memory, and nothing is missing at the end.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import attrs
import orjson

from ...storage import AlarmRow, ObjectRow
from ..errors import CommandError
from ..storage import exact_json
from ..storage.batches import batches
from .format import EndLine, decode_line, is_header


@contextmanager
def ensure_seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """``file``, or a copy of what it has if it can be read only once."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile(prefix="trio_durable-import-") as copy:
        shutil.copyfileobj(file, copy)
        yield copy


def check_export(
    file: BinaryIO, name: str, tenant: str | None, advance: Callable[[int], None]
) -> None:
    """Read it all.

    Args:
        file: The export.
        name: What it is called, for messages.
        tenant: Whose rows are wanted, so that there have to be some; None for all.
        advance: Is told how many bytes were read.

    Raises:
        Refusal: A line can't be imported; says which, and why. Or the tenant has none.
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
                f"{name}, line {number}: {error}; mend the file, or export anew"
            ) from None
        advance(len(line))
    if not checker.has_ended:
        raise CommandError(
            f"{name}, line {number + 1}: the end is missing; the file was cut off, or is no "
            "export: export anew"
        )
    if not (tenant is None or checker.has_wanted):
        raise CommandError(
            f"{name} has nothing of a tenant {tenant}; check the name, or leave out -t"
        )


class _ExportChecker:
    """Takes the lines one by one."""

    def __init__(self, wanted: str | None) -> None:
        self.has_ended = False
        self.has_wanted = False
        self._wanted = wanted
        self._has_begun = False
        self._objects = self._alarms = 0
        self._last: tuple[bytes, ...] = ()

    def take(self, data: object) -> None:
        """Check a line.

        Raises:
            ValueError: It can't be there.
        """
        if not self._has_begun:
            if not is_header(data):
                raise ValueError("no export begins like this; the header is missing")
            self._has_begun = True
            return
        line = decode_line(data)
        if self.has_ended:
            raise ValueError("the end came before")
        if isinstance(line, EndLine):
            if line != EndLine(self._objects, self._alarms):
                raise ValueError(
                    f"here should be {line.objects} objects and {line.alarms} alarms, and there "
                    f"were {self._objects} and {self._alarms}; lines are missing or were added"
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
                f"{key} is not in order; lines go by tenant, then objects before alarms, then by "
                "type, id and name"
            )
        self._last = place


@attrs.frozen
class Chunk:
    """Some rows, with the numbers of their lines."""

    objects: list[tuple[int, ObjectRow]]
    alarms: list[tuple[int, AlarmRow]]


def read_chunks(
    file: BinaryIO, tenant: str | None, advance: Callable[[int], None]
) -> Iterator[Chunk]:
    """The rows of a checked export, as many at a time as fit into memory.

    Args:
        file: The export.
        tenant: Only those of a tenant; None for all.
        advance: Is told how many bytes were read.
    """
    for batch in batches(_rows(file, tenant, advance), lambda row: row[2]):
        yield Chunk(
            [(number, line) for number, line, _ in batch if isinstance(line, ObjectRow)],
            [(number, line) for number, line, _ in batch if isinstance(line, AlarmRow)],
        )


def _rows(
    file: BinaryIO, tenant: str | None, advance: Callable[[int], None]
) -> Iterator[tuple[int, ObjectRow | AlarmRow, int]]:
    """Each with the number of its line, and how long that is."""
    file.seek(0)
    for number, text in enumerate(file, 1):
        advance(len(text))
        # Checked, so nothing is lost by a parser that is fast and lenient.
        line = None if number == 1 else decode_line(orjson.loads(text))
        if line is None or isinstance(line, EndLine):
            continue
        key = line.key if isinstance(line, ObjectRow) else line.alarm.key
        if tenant in (None, key.tenant):
            yield number, line, len(text)

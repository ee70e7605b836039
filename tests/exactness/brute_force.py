"""All types and unions of two, with all values: each is exact or refused, never changed.

    python -m tests.exactness.brute_force               everything, in some minutes
    python -m tests.exactness.brute_force --every 50    a fiftieth of it

It prints a table with a line for each way to read:

- "same release": a value is stored, the object leaves memory, and is loaded by the same class.
- "changed type": it is loaded by a class in which the field has another type, see `readings`.
- "old row": release 0.1.0 wrote the row.

The columns count the results. "wrong" are values that came back changed, or that were read and
can't be written again, and errors that aren't the library's. "unreadable" are values that were
stored and that the same release can't read. "missing" are changes of type that must be read, and
were refused. These three have to be 0; the first examples of each are printed below the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Union, get_origin

import attrs
import trio

from trio_durable import DefinitionError, DurableObject, StateDecodeError, StateEncodeError

from . import frozen_writer
from .annotations import BIG_INT, PLAIN, holder, holds, identical, members, normal
from .classes import fields_of, is_record
from .declarations import MEMBERS, Member, all_values
from .readings import Reading, reading
from .snapshot import same
from .workbench import Workbench, durable, is_refusal, made, single, workbench

SAME, CHANGED, OLD = "same release", "changed type", "old row"
EXACT, DEFINITION, WRITE, READ = "exact", "definition", "write", "read"
WRONG, UNREADABLE, MISSING = "wrong", "unreadable", "missing"
COLUMNS = {
    EXACT: "exact",
    DEFINITION: "refused at definition",
    WRITE: "at write",
    READ: "at read",
    MISSING: "missing",
    UNREADABLE: "unreadable",
    WRONG: "WRONG",
}
FAILURES = (WRONG, UNREADABLE, MISSING)


@attrs.define
class Report:
    """Counts by the way to read and the result, and examples of failures."""

    counts: dict[str, Counter[str]] = attrs.field(
        factory=lambda: {way: Counter[str]() for way in (SAME, CHANGED, OLD)}
    )
    examples: dict[tuple[str, str, str], str] = attrs.field(factory=dict)

    def add(self, way: str, result: str, types_: str = "", example: str = "") -> None:
        self.counts[way][result] += 1
        if result in FAILURES:
            self.examples.setdefault((way, result, types_), example)

    @property
    def failures(self) -> int:
        return sum(counts[result] for counts in self.counts.values() for result in FAILURES)

    def lines(self, most: int) -> Iterator[str]:
        yield "".join([f"{'':14}", *(f"{title:>{len(title) + 3}}" for title in COLUMNS.values())])
        for way, counts in self.counts.items():
            numbers = (f"{counts[key]:>{len(title) + 3},}" for key, title in COLUMNS.items())
            yield "".join([f"{way:14}", *numbers])
        for result in FAILURES:
            found = [(key, text) for key, text in self.examples.items() if key[1] == result]
            for (way, _, types_), text in found[:most]:
                yield f"{result}, {way}: {types_}: {text}"
            if found[most:]:
                yield f"{result}: {len(found) - most} more pairs of types"


def declarations() -> list[Member]:
    """The types alone, with None, and in unions of two."""
    return [*MEMBERS, *(optional(each) for each in MEMBERS), *unions()]


def optional(each: Member) -> Member:
    return Member(f"{each.name} | None", union(each.annotation, None), lambda: [None, *each.make()])


def unions() -> Iterator[Member]:
    for left, right in itertools.combinations(MEMBERS, 2):
        yield Member(
            f"{left.name} | {right.name}",
            union(left.annotation, right.annotation),
            functools.partial(_values_of_both, left, right),
        )


def union(left: Any, right: Any) -> Any:
    """The union of two types, some of which don't have the operator."""
    return Union[left, right]  # noqa: UP007


def _values_of_both(left: Member, right: Member) -> list[Any]:
    return [*left.make(), *right.make()]


class BruteForce:
    """The attempts, over one runtime.

    Args:
        bench: The runtime.
        every: One attempt in so many is made, by chance.
        seed: The seed of that chance.
    """

    def __init__(self, bench: Workbench, every: int = 1, seed: int = 0) -> None:
        self.report = Report()
        self._bench = bench
        self._chance = random.Random(seed)
        self._every = every
        self._classes: dict[str, type[DurableObject] | None] = {}

    def _chosen(self) -> bool:
        return self._every == 1 or self._chance.randrange(self._every) == 0

    async def run(self) -> Report:
        found = declarations()
        for each in found:
            await self._same_release(each)
        for source in found[: 2 * len(MEMBERS)]:
            await self._pairs(source, found)
        for source in unions():
            await self._pairs(source, found, rarely=50)
        return self.report

    async def _defined(self, each: Member) -> type[DurableObject] | None:
        """The class of a declaration, or None if it is refused."""
        if each.name not in self._classes:
            self._classes[each.name] = await self._define(each)
        return self._classes[each.name]

    async def _define(self, each: Member) -> type[DurableObject] | None:
        try:
            cls = durable({"value": (each.annotation, lambda: each.make()[0])})
            await self._bench.store(cls())
        except DefinitionError:
            return None
        except Exception as error:  # noqa: BLE001  # a definition may raise anything
            self.report.add(SAME, WRONG, each.name, f"the definition raised {single(error)!r}")
            return None
        return cls

    async def _same_release(self, each: Member) -> None:
        values = [*((each.name, value) for value in each.make()), *all_values()]
        for name, value in values:
            if not self._chosen():
                continue
            cls = await self._defined(each)
            if cls is None:
                self.report.add(SAME, DEFINITION)
                continue
            try:
                await self._bench.store(made(cls, value=value))
            except StateEncodeError:
                self.report.add(SAME, WRITE)
                continue
            except Exception as error:  # noqa: BLE001  # a write may raise anything
                self.report.add(SAME, WRONG, each.name, f"{value!r} raised {single(error)!r}")
                continue
            await self._read(SAME, cls, each, each, value, Reading((value,), True), name)

    async def _pairs(self, source: Member, found: list[Member], rarely: int = 1) -> None:
        """All values of one declaration, read under all others."""
        values = [value for value in source.make() if holds(source.annotation, value)]
        rows = [
            (value, await self._row(source, value), self._old_row(source, value))
            for value in values
        ]
        for target in found:
            if rarely > 1 and self._chance.randrange(rarely):
                continue
            for value, row, old_row in rows:
                if row is not None and self._chosen():
                    expected = reading(source.annotation, target.annotation, value)
                    await self._transplant(CHANGED, row, source, target, value, expected)
                if old_row is not None and self._chosen():
                    await self._transplant(OLD, old_row, source, target, value, None)

    async def _row(self, source: Member, value: Any) -> bytes | None:
        cls = await self._defined(source)
        if cls is None:
            return None
        # Without a row from another declaration, which would be left as it is if it fits.
        await self._bench.runtime.delete(cls, "a")
        try:
            await self._bench.store(made(cls, value=value))
        except Exception:  # noqa: BLE001  # counted by _same_release
            return None
        return self._bench.row(cls)

    def _old_row(self, source: Member, value: Any) -> bytes | None:
        try:
            return frozen_writer.encode({"value": source.annotation}, {"value": value})
        except Exception:  # noqa: BLE001  # the old release refused it, in one way or another
            return None

    async def _transplant(
        self,
        way: str,
        row: bytes,
        source: Member,
        target: Member,
        value: Any,
        expected: Reading | None,
    ) -> None:
        """Read a row that was written with one declaration under another."""
        cls = await self._defined(target)
        if cls is None:
            self.report.add(way, DEFINITION)
            return
        await self._bench.runtime.stop(cls, "a")
        self._bench.put_row(cls, row)
        await self._read(way, cls, source, target, value, expected, row.decode())

    async def _read(
        self,
        way: str,
        cls: type[DurableObject],
        source: Member,
        target: Member,
        value: Any,
        expected: Reading | None,
        note: str,
    ) -> None:
        types_ = source.name if source is target else f"{source.name} -> {target.name}"
        shown = f"{value!r} ({note:.80})"
        try:
            got = (await self._bench.load(cls)).value
        except StateDecodeError as error:
            if way == SAME:
                self.report.add(way, UNREADABLE, types_, f"{shown}: {error.problem}")
            elif self._must_be_read(source, target, expected):
                self.report.add(way, MISSING, types_, f"{shown}: {error.problem}")
            else:
                self.report.add(way, READ)
            return
        except Exception as error:  # noqa: BLE001  # a read may raise anything
            self.report.add(way, WRONG, types_, f"{shown} raised {single(error)!r}")
            return
        if expected is None:
            is_right = _may_be_old(source.annotation, target.annotation, value, got, note)
        else:
            is_right = expected.allows(got)
        if not is_right:
            self.report.add(way, WRONG, types_, f"{shown} became {got!r}")
            return
        try:
            await self._bench.store(made(cls, value=got))
            again = (await self._bench.load(cls)).value
        except Exception as error:  # noqa: BLE001  # a write may raise anything
            kind = "was read, and not written again" if is_refusal(error) else "raised"
            self.report.add(way, WRONG, types_, f"{shown} {kind}: {single(error)!r}")
            return
        if same(again, got):
            self.report.add(way, EXACT)
        else:
            self.report.add(
                way, WRONG, types_, f"{shown} became {again!r} when it was written again"
            )

    def _must_be_read(self, source: Member, target: Member, expected: Reading | None) -> bool:
        if expected is None:
            # A Sequence was written as a list is; a union of list and tuple was tagged.
            left, right = normal(source.annotation), normal(target.annotation)
            return identical(left, right) and get_origin(left) is get_origin(right)
        return expected.required


def _may_be_old(source: Any, target: Any, value: Any, got: Any, row: str) -> bool:
    """True if a row of the last release may be read so.

    Its type isn't in the row. A value without a tag is one of the kind that JSON has, or else it
    has to be written as it stands.
    """
    if same(got, value) or reading(source, target, value).allows(got):
        return True
    stored = json.loads(row)["value"]
    if type(got) in PLAIN and type(got) is type(stored) and got == stored:
        return True
    member = holder(source, value)
    if _says_nothing(source, target, value, got, stored):
        return True
    if any(identical(member, each) for each in members(target)):
        return False
    return any(_writes(each, got, row) for each in (target, *members(target)))


def _says_nothing(source: Any, target: Any, value: Any, got: Any, stored: Any) -> bool:
    """True if a row of the last release is that of several declarations, of which it names none."""
    if type(stored) is list and isinstance(got, (list, tuple)):
        # A list, a tuple, or a named tuple that had fewer fields.
        return list(got)[: len(stored)] == stored
    if type(stored) is dict and any(map(is_record, members(target))):
        if not stored or stored.keys() == {"$type", "value"}:
            return True
        # The class may have lost fields since, but not all of them.
        fields = {name for each in members(target) if is_record(each) for name in fields_of(each)}
        kept: Any = value if type(value) is dict else {n: getattr(value, n) for n in stored}
        kept = {name: item for name, item in kept.items() if name in fields}
        return bool(kept) and reading(dict[str, Any], target, kept).allows(got)
    return type(stored) is dict and stored.keys() == {"$type", "value"}


def _writes(annotation: Any, value: Any, row: str) -> bool:
    if annotation is BIG_INT:  # the last release wrote an int, and knew no other text than str
        return repr(json.loads(row)["value"]) in (repr(value), repr(str(value)))
    try:
        return frozen_writer.encode({"value": annotation}, {"value": value}).decode() == row
    except Exception:  # noqa: BLE001  # a type or a value that the last release didn't know
        text = list(value) if hasattr(value, "maxlen") else str(value)
        return bool(json.loads(row)["value"] == text)


async def tried(every: int, seed: int = 0) -> Report:
    """The report of one attempt in ``every``."""
    async with workbench(call_timeout=None) as bench:
        return await BruteForce(bench, every, seed).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exactness.brute_force")
    parser.add_argument("--every", type=int, default=1, help="make one attempt in so many")
    parser.add_argument("--seed", type=int, default=0, help="choose others")
    parser.add_argument("--examples", type=int, default=20, help="of each kind of failure")
    arguments = parser.parse_args()
    report = trio.run(tried, arguments.every, arguments.seed)
    print(  # noqa: T201
        f"{len(MEMBERS)} types, {len(list(unions()))} unions",
        *report.lines(arguments.examples),
        sep="\n",
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())

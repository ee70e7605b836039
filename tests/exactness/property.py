"""The property: drawn definitions and values are exact, or refused by name.

    python -m tests.exactness.property                   some hundred examples of each test
    python -m tests.exactness.property --examples 20000  more of them
    python -m tests.exactness.property --kinds           every kind of fault, with an example

The tests of this folder run the same functions with fewer examples.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Union

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from .definitions import NAMES, definitions
from .drawn_types import Typed, items_of
from .faults import Fault, is_refused, raised
from .journey import Definition, Journey, Worker, described, look
from .raw import Uncopyable, mutables
from .releases import Release, releases
from .releases import check as check_upgrade
from .storage import base_of, dict_of, slots_of
from .workbench import durable, workbench

FIELDS = [name for name in NAMES if name != "ctx"]


def _optional(each: Typed) -> Typed:
    union: Any = Union
    return Typed(union[each.annotation, None], each.values, each.hashable, each.note)


def _listed(each: Typed) -> Typed:
    kind: Any = list
    return Typed(kind[each.annotation], items_of(each), False, each.note)


@st.composite
def drawn_definitions(draw: st.DrawFn) -> Definition:
    """Fields of a durable class, with defaults and values; two fields may have one value."""
    found: dict[str, Typed] = {}
    defaults: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2, unique=True)):
        found[name] = each = draw(definitions())
        # A default shows some faults while the class is defined, so not all fields have one.
        shape = draw(st.sampled_from(["plain", "plain", "optional", "listed"]))
        if shape == "plain":
            defaults[name] = draw(each.values)
        elif shape == "optional":
            found[name], defaults[name] = _optional(each), None
        else:
            found[name], defaults[name] = _listed(each), []
    first = next(iter(found))
    values: dict[str, Any] = {name: draw(each.values) for name, each in found.items()}
    is_shared: bool = draw(st.sampled_from([True, *[False] * 5]))
    if is_shared:
        found["again"], defaults["again"] = found[first], defaults[first]
        values["again"] = values[first]
    if draw(st.integers(0, 7)) == 0:
        spoil(draw, list(values.values()))
    return Definition(found, defaults, values)


def spoil(draw: st.DrawFn, value: Any) -> None:
    """Store what isn't declared in an instance, or remove what is."""
    found = [each for each in mutables(value).values() if base_of(type(each)) is object]
    if not found:
        return
    instance = found[draw(st.integers(0, len(found) - 1))]
    members = dict_of(instance)
    slots = list(slots_of(type(instance)))
    adds: bool = draw(st.booleans())
    if members and adds:
        dict.__setitem__(members, "undeclared", 1)
    elif members:
        dict.popitem(members)
    elif slots:
        try:
            slots[0].__delete__(instance)
        except AttributeError:
            return


def check_definition(definition: Definition) -> str:
    """Take one definition through its journey.

    Raises:
        Fault: It was neither exact nor refused by name.
    """
    return trio.run(Journey.go, definition)


def check_release(release: Release) -> str:
    """Read with one release what another one wrote.

    Raises:
        Fault: It was neither exact nor refused by name.
    """
    return trio.run(check_upgrade, release)


_numbers = itertools.count(100)


@attrs.define
class Impure:
    """A field whose default differs from object to object, or is drawn at random."""

    wrap: Callable[[Any], Any] = attrs.field(repr=False)
    annotation: Any
    pure: Typed
    is_added: bool
    """True if a new release added the field to objects that are stored."""


@attrs.define
class Counted:
    """A class whose instances have numbers."""

    number: int = attrs.field(factory=lambda: next(_numbers))


_list: Any = list
WRAPPERS: list[tuple[Any, Callable[[Any], Any]]] = [
    (int, lambda number: number),
    (str, str),
    (_list[int], lambda number: [number]),
    (tuple[int, ...], lambda number: (number,)),
    (Counted, lambda _: Counted()),
    (_list[Counted], lambda _: [Counted()]),
]
impure_defaults = st.builds(
    lambda wrapper, pure, is_added: Impure(wrapper[1], wrapper[0], pure, is_added),
    st.sampled_from(WRAPPERS),
    st.sampled_from([Typed(int, st.just(1)), Typed(str, st.just("a"))]),
    st.booleans(),
)


def check_impure(impure: Impure) -> str:
    """An object keeps the default that its first turn saw, even if that turn was readonly.

    Raises:
        Fault: It has another one after a restart.
    """
    return trio.run(_check_impure, impure)


async def _check_impure(impure: Impure) -> str:
    label = f"{described(Typed(impure.annotation, st.nothing()))}, added={impure.is_added}"
    fields = {"pure": (impure.pure.annotation, lambda: 1 if impure.pure.annotation is int else "a")}
    older = durable(fields, bases=(Worker,))
    made = (impure.annotation, lambda: impure.wrap(next(_numbers)))
    cls = durable({**fields, "made": made}, bases=(Worker,))
    try:
        async with workbench(None, older, cls, call_timeout=None) as bench:
            if impure.is_added:
                await bench.store(older())
                row = bench.row(older)
                assert row is not None
                bench.put_row(cls, row)
            first = await look(bench.runtime, cls, "a", ["made"])
            await bench.runtime.stop(cls, "a")
            second = await look(bench.runtime, cls, "a", ["made"])
    except Exception as error:
        if is_refused(error):
            return "refused"
        raise raised("at a default", error, label) from error
    if first != second:
        raise Fault("random default not saved", f"{label}: {first[0][1]}, then {second[0][1]}")
    return "exact"


# --- the kinds of faults -------------------------------------------------------------------------

CHECKS: dict[str, tuple[Callable[[Any], str], st.SearchStrategy[Any]]] = {
    "definitions": (check_definition, drawn_definitions()),
    "releases": (check_release, releases()),
    "defaults": (check_impure, impure_defaults),
}


@attrs.define
class Kinds:
    """Faults by kind, each with the shortest example, and results of the other examples."""

    results: Counter[str] = attrs.field(factory=Counter)
    found: Counter[str] = attrs.field(factory=Counter)
    shortest: dict[str, str] = attrs.field(factory=dict)

    def add(self, fault: Fault) -> None:
        self.found[fault.kind] += 1
        shortest = self.shortest.get(fault.kind)
        if shortest is None or len(fault.detail) < len(shortest):
            self.shortest[fault.kind] = fault.detail

    def lines(self) -> Iterator[str]:
        yield ", ".join(f"{count:,} {result}" for result, count in self.results.most_common())
        yield f"{len(self.found)} kinds of faults"
        for kind, count in self.found.most_common():
            yield f"{count:>6,}  {kind}: {self.shortest[kind]}"


def _collect(kinds: Kinds, check: Callable[[Any], str], first: bool, drawn: Any) -> None:
    if first and kinds.found:
        return
    try:
        kinds.results[check(drawn).partition(":")[0]] += 1
    except Uncopyable:
        reject()
    except Fault as fault:
        for each in (fault, *fault.others):
            kinds.add(each)


def _test_of(
    strategy: st.SearchStrategy[Any], chosen: settings, one: Callable[[Any], None]
) -> Callable[[], None]:
    @chosen
    @given(strategy)
    def test(drawn: Any) -> None:
        one(drawn)

    return test


def search(names: list[str], count: int, seed: int | None = None, first: bool = False) -> Kinds:
    """Kinds of faults in examples of checks.

    Args:
        names: The checks.
        count: The number of examples of each.
        seed: The seed; without one the examples are the same each time.
        first: Check no further example once a fault is found.
    """
    kinds = Kinds()
    for name in names:
        check, strategy = CHECKS[name]
        one = functools.partial(_collect, kinds, check, first)
        chosen = settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=seed is None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        test = _test_of(strategy, chosen, one)
        if seed is not None:
            test = seeded(seed)(test)
        test()
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exactness.property")
    parser.add_argument("--examples", type=int, default=500, help="of each check")
    parser.add_argument("--seed", type=int, help="draw others")
    parser.add_argument("--only", choices=list(CHECKS), help="one of the checks")
    parser.add_argument(
        "--kinds", action="store_true", help="exit with 0 whatever is found, and say what"
    )
    parser.add_argument("--first", action="store_true", help="stop at the first fault")
    arguments = parser.parse_args()
    logging.disable()  # errors by the thousand
    names = [arguments.only] if arguments.only else list(CHECKS)
    kinds = search(names, arguments.examples, arguments.seed, arguments.first)
    sys.stdout.write("".join(f"{line}\n" for line in kinds.lines()))
    return 1 if kinds.found and not arguments.kinds else 0


if __name__ == "__main__":
    sys.exit(main())

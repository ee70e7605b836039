"""Two releases of a class: state that one wrote, read by the next.

A release adds, drops, reorders, renames, swaps or changes fields, of the durable class or of a
class in a field of it. The row is written by the present codec, or by the frozen one of release
0.1.0.

A release may also have an ``@upgrade``, which gives one field the JSON of its new type, or moves a
field. A field whose JSON the upgrade has changed is read by the present type; all others keep the
type that the row records.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable
from typing import Any, NamedTuple, Union

import attrs
from hypothesis import assume
from hypothesis import strategies as st

from trio_durable import DurableObject, StateEncodeError, upgrade

from . import frozen_writer
from .brute_force import _may_be_old
from .classes import build, fields_of
from .declarations import MEMBERS
from .definitions import classes, definitions, enums, named_tuples, typed_dicts
from .drawn_types import Typed, Types, drawn_types, of_member
from .faults import Fault, changed, has_union, is_refused, raised, show
from .journey import described
from .oddities import RAN
from .raw import Uncopyable, copied, wreck
from .readings import REFUSED, Reading, must, reading
from .snapshot import snapshot
from .storage import stored
from .workbench import Workbench, durable, single, workbench

NAMES = ["a", "b", "number", "value", "items", "type", "_x", "é"]
CHANGES = [
    *("same", "add", "add", "drop", "reorder", "rename", "optional", "swap", "change", "change"),
    *("upgrade", "upgrade", "move"),
]
UPGRADES = ("upgrade", "move")
"""The changes that an ``@upgrade`` makes."""
KNOWN = ("swap", "change", "upgrade")
"""The changes whose results the model has to know, so that the types are those of brute force."""
SHAPES = ["", "", "plain", "list", "dict", "optional"]
TOOLS = ["attrs", "dataclass", "NamedTuple"]
Fields = dict[str, Typed]


@attrs.define
class Release:
    """A change of fields, and values of the older ones."""

    change: str
    shape: str
    """Of the field with the nested class; empty if the fields are those of the durable class."""
    tool: str
    is_old_row: bool
    before: Fields
    after: Fields
    values: dict[str, Any]
    defaults: dict[str, Any]
    upgraded: Any = None
    """The value that an upgrade makes."""
    is_one_default: bool = False
    """True if each default is one object, not a new one each time."""
    is_left_alone: bool = False
    """True once the upgrade was found to make the JSON that was stored."""

    @property
    def label(self) -> str:
        """The change as text."""
        sides = [
            ", ".join(f"{name}: {described(each)}" for name, each in fields.items())
            for fields in (self.before, self.after)
        ]
        nested = f" in a {self.shape} {self.tool} class" if self.shape else ""
        writer = ", old row" if self.is_old_row else ""
        value = show(snapshot(list(self.values.values()))[1])
        if self.change == "upgrade":
            value += f", upgraded to {show(snapshot(self.upgraded))}"
        return f"{self.change}{nested}{writer}: ({sides[0]}) -> ({sides[1]}) of {value}"

    def expected(self, name: str) -> Reading:
        """The results that a field may have."""
        now = self.after[name]
        first = next(iter(self.before))
        if self.tool == "NamedTuple" and list(self.after)[: len(self.before)] != list(self.before):
            return REFUSED  # its items have no names in JSON
        if self.change == "move" and name == "renamed":
            return must(self.values[first])
        if self.change == "upgrade" and name == first and not self.is_left_alone:
            return must(self.upgraded)
        if name not in self.before:
            return must(self.defaults[name])
        was = self.before[name]
        if self.change in KNOWN:
            return reading(was.annotation, now.annotation, self.values[name])
        return must(self.values[name])


def _without_oddities(types_: Types, depth: int) -> st.SearchStrategy[Typed]:
    return st.one_of(*(kind(types_, depth) for kind in (named_tuples, typed_dicts, enums)))


@st.composite
def releases(draw: st.DrawFn) -> Release:
    """Two releases, and a value of the older one."""
    change = draw(st.sampled_from(CHANGES))
    shape = "" if change in UPGRADES else draw(st.sampled_from(SHAPES))
    tool = draw(st.sampled_from(TOOLS)) if shape else ""
    is_old_row = not shape and change not in UPGRADES and draw(st.booleans())
    known: st.SearchStrategy[Typed] = st.sampled_from(MEMBERS).map(of_member)
    if change in KNOWN:
        kinds = known
    elif is_old_row:
        kinds = drawn_types(1, _without_oddities)
    else:
        kinds = st.one_of(known, definitions(), drawn_types(1, classes))
    usable = [name for name in NAMES if tool != "NamedTuple" or name != "_x"]
    names = draw(st.lists(st.sampled_from(usable), min_size=2, max_size=3, unique=True))
    before: Fields = {name: draw(kinds) for name in names}
    after = dict(before)
    first, second = names[:2]
    if change == "add":
        del before[names[-1] if draw(st.booleans()) else first]
    elif change == "drop":
        del after[first]
    elif change == "reorder":
        after = dict(reversed(before.items()))
    elif change in ("rename", "move"):
        del after[first]
        after["renamed"] = before[first]
    elif change == "optional":
        union: Any = Union
        each = before[first]
        after[first] = attrs.evolve(each, annotation=union[each.annotation, None])
    elif change == "swap":
        after[first], after[second] = before[second], before[first]
    elif change in ("change", "upgrade"):
        after[first] = draw(known)
    values = {name: draw(each.values) for name, each in before.items()}
    defaults = {name: draw(each.values) for name, each in (before | after).items()}
    upgraded = draw(after[first].values) if change == "upgrade" else None
    is_one = draw(st.booleans())
    release = Release(
        change, shape, tool, is_old_row, before, after, values, defaults, upgraded, is_one
    )
    assume(is_copyable(release))
    return release


def _nested(release: Release, fields: Fields) -> Any:
    """The class in a field: its name is the same in both releases."""
    body: dict[str, Any] = {
        "__annotations__": {name: each.annotation for name, each in fields.items()},
        "__module__": __name__,
        "__qualname__": "Nested",
    }
    for name in fields:
        make = _maker(release, name)
        if release.tool == "NamedTuple":
            body[name] = make()
        elif release.tool == "dataclass":
            body[name] = dataclasses.field(default_factory=make)
        elif release.is_one_default:
            body[name] = attrs.field(default=make())
        else:
            body[name] = attrs.field(factory=make)
    bases: tuple[Any, ...] = (NamedTuple,) if release.tool == "NamedTuple" else ()
    cls = types.new_class("Nested", bases, {}, lambda ns: ns.update(body))
    if release.tool == "attrs":
        return attrs.define(cls, kw_only=True)
    return dataclasses.dataclass(kw_only=True)(cls) if release.tool == "dataclass" else cls


def _maker(release: Release, name: str) -> Callable[[], Any]:
    default = copied(release.defaults[name])
    return (lambda: default) if release.is_one_default else lambda: copied(default)


def _class(
    release: Release, fields: Fields, *, step: Callable[[Any], Any] | None = None
) -> tuple[type[DurableObject], Any]:
    """The durable class of a release, and the class in its field.

    Args:
        release: The release.
        fields: The fields that change.
        step: The function of its upgrade from schema 1, if it has one.
    """
    if not release.shape:
        found = {name: (each.annotation, _maker(release, name)) for name, each in fields.items()}
        if step is None:
            return durable(found), None
        members = {"make_it_new": upgrade(from_schema=1)(staticmethod(step))}
        return durable(found, members=members, schema=2), None
    nested = _nested(release, fields)
    list_of, dict_of_text = _generic(list, nested), _generic(dict, (str, nested))
    if release.shape == "list":
        return durable({"held": (list_of, list)}), nested
    if release.shape == "dict":
        return durable({"held": (dict_of_text, dict)}), nested
    annotation: Any = Union[nested, None]  # noqa: UP007
    if release.shape == "optional":
        return durable({"held": (annotation, lambda: None)}), nested
    return durable({"held": (nested, nested)}), nested


def _generic(kind: Any, arguments: Any) -> Any:
    return kind[arguments]


def _held(release: Release, nested: Any, values: dict[str, Any]) -> Any:
    made = build(nested, {name: values[name] for name in fields_of(nested)})
    return {"list": [made], "dict": {"key": made}}.get(release.shape, made)


def _unwrapped(release: Release, instance: Any) -> Any:
    """The instance that has the changed fields."""
    if not release.shape:
        return instance
    held = stored(instance, "held")
    if release.shape == "list":
        return held[0]
    return held["key"] if release.shape == "dict" else held


def _field(instance: Any, name: str) -> Any:
    """The value of a field of a class, or of a NamedTuple."""
    if isinstance(instance, tuple):
        return tuple.__getitem__(instance, type(instance)._fields.index(name))  # type: ignore[attr-defined]
    return stored(instance, name)


async def check(release: Release) -> str:
    """Write with one release, and read with the next.

    Raises:
        Fault: What was read is neither exact nor refused by name, or can't be written again.
    """
    label = release.label
    try:
        older, nested = _class(release, release.before)
        upgraded: dict[str, Any] = {}
        step = _step(release, upgraded) if release.change in UPGRADES else None
        newer, changed_class = _class(release, release.after, step=step)
    except Exception as error:  # a definition may raise anything
        if not is_refused(error):
            raise raised("at definition", error, label) from error
        return "refused at definition"
    try:
        async with workbench(call_timeout=None) as bench:
            if release.change == "upgrade" and not await _draw_upgrade(release, bench, upgraded):
                return "refused at write"
            return await _upgrade(release, bench, older, newer, nested, changed_class)
    except Exception as error:
        if isinstance(error, Fault):
            raise
        if is_refused(error):
            return "refused at definition"
        raise raised("at opening", error, label) from error


def _step(release: Release, upgraded: dict[str, Any]) -> Callable[[Any], Any]:
    """The function of an upgrade, which moves a field or takes over the ``upgraded`` JSON."""
    first = next(iter(release.before))

    def step(state: dict[str, Any]) -> dict[str, Any]:
        if release.change == "move":
            state["renamed"] = state.pop(first)
        else:
            release.is_left_alone = json.dumps(state[first]) == json.dumps(upgraded[first])
            state |= upgraded
        return state

    return step


async def _draw_upgrade(release: Release, bench: Workbench, upgraded: dict[str, Any]) -> bool:
    """Get the JSON of the new value from a class of its own; False if it is refused."""
    first = next(iter(release.before))
    each = release.after[first]
    alone = durable({first: (each.annotation, lambda: copied(release.upgraded))})
    if not await _stored(release, bench, alone, None, {first: copied(release.upgraded)}):
        return False
    row = bench.row(alone)
    assert row is not None
    upgraded[first] = json.loads(row)[first]
    return True


async def _upgrade(
    release: Release,
    bench: Workbench,
    older: type[DurableObject],
    newer: type[DurableObject],
    nested: Any,
    changed_class: Any,
) -> str:
    label = release.label
    defaults = {name: copied(release.defaults[name]) for name in release.after}
    if not await _stored(release, bench, newer, changed_class, defaults):
        return "refused at write"  # a default that can't be stored isn't one to be added
    row = await _row(release, bench, older, nested)
    if row is None:
        return "refused at write"
    bench.put_row(newer, row)
    bench.put_row(newer, row, "b")
    RAN.clear()
    try:
        got = await bench.load(newer)
    except Exception as error:
        if not is_refused(error):
            raise raised("at read", error, label) from error
        if release.is_old_row and "nested more than" in str(single(error)):
            return "refused at read"  # the last release had no bound of depth
        if isinstance(single(error), StateEncodeError):
            raise Fault("read, but not written again", f"{label}: {error}") from error
        if bench.row(newer) != row:
            raise Fault("a refused read left a trace", label) from error
        expected = {name: release.expected(name) for name in release.after}
        unions = any(has_union(each.annotation) for each in release.after.values())
        if all(each.required for each in expected.values()) and not (
            release.is_old_row and (unions or release.change in KNOWN)
        ):
            raise Fault(f"refused what stays ({release.change})", f"{label}: {error}") from error
        return "refused at read"
    expected = {name: release.expected(name) for name in release.after}
    _compare(release, expected, _unwrapped(release, got), row)
    result = await _written_again(label, bench, newer, got)
    await _apart(label, bench, newer, got)
    return result


async def _row(
    release: Release, bench: Workbench, older: type[DurableObject], nested: Any
) -> bytes | None:
    if release.is_old_row:
        annotations = {name: each.annotation for name, each in release.before.items()}
        try:
            return frozen_writer.encode(annotations, release.values)
        except Exception:  # noqa: BLE001  # the old release refused it, in one way or another
            return None
    if not await _stored(release, bench, older, nested, release.values):
        return None
    return bench.row(older)


async def _stored(
    release: Release, bench: Workbench, cls: type[DurableObject], nested: Any, values: Any
) -> bool:
    """Store values; False if they are refused."""
    make: Any = cls
    if release.shape:
        values = {"held": _held(release, nested, values)}
    try:
        await bench.store(make(**values))
    except Exception as error:
        if is_refused(error):
            return False
        raise raised("at write", error, release.label) from error
    return True


def _compare(release: Release, expected: dict[str, Reading], instance: Any, row: bytes) -> None:
    for name, each in release.after.items():
        allowed = expected[name]
        found = _field(instance, name)
        if allowed.allows(found):
            continue
        was = release.before.get(name)
        if release.is_old_row and was is not None:
            value = release.values[name]
            alone = frozen_writer.encode({"value": was.annotation}, {"value": value}).decode()
            if _may_be_old(was.annotation, each.annotation, value, found, alone):
                continue
        if not allowed.values:
            kind = "a changed type was read as another value"
            raise Fault(kind, f"{release.label}: {name} is {show(snapshot(found))}")
        wanted = snapshot(allowed.values[0])
        where = f"after {release.change}{', from an old row' * release.is_old_row}"
        raise changed(where, each.annotation, wanted, snapshot(found), release.label)


async def _written_again(label: str, bench: Workbench, newer: type[DurableObject], got: Any) -> str:
    wanted = snapshot(got)
    try:
        await bench.store(got)
    except Exception as error:
        if is_refused(error):
            raise Fault("read, but not written again", f"{label}: {error}") from error
        raise raised("at write", error, label) from error
    again = await bench.load(newer)
    if snapshot(again) != wanted:
        raise Fault("changed when written again", label)
    return "exact"


async def _apart(label: str, bench: Workbench, newer: type[DurableObject], got: Any) -> None:
    """Change one object in place, and compare another one of the same row."""
    wanted = snapshot(got)
    await bench.runtime.ensure_started(newer, "b")
    for _ in range(2):
        other = await bench.runtime.get_state(newer, "b")
        if snapshot(other) != wanted:
            raise Fault("default shared", label)
        wreck(other)


def is_copyable(release: Release) -> bool:
    """True if the values and defaults can be made again."""
    try:
        copied([release.values, release.defaults, release.upgraded])
    except Uncopyable:
        return False
    return True

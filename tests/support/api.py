"""The public surface of the library as text; ``make api`` writes it to ``tests/api.txt``.

A module that declares ``__all__`` is public, and so is what it lists: names, signatures with their
types and defaults, the members of classes that don't begin with an underscore, fields with their
values, and bases. It is read from the source, by griffe, and not from what is imported, so that it
is the same under every version of Python and whatever extras are installed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import griffe

import trio_durable

RECORD = Path(__file__).parents[1] / "api.txt"
SOURCE = Path(trio_durable.__file__).parents[1]
HEAD = "The public surface of trio_durable. `make api` writes this file.\n"

UNLISTED = {
    # Given with the class statement or at run time, so not in the list of the names to import.
    "trio_durable": ["PostgresStorage", "make_converter"],
}
SUITES = ("trio_durable.testing.conformance.", "trio_durable.testing.scheduler_conformance.")
"""The parts of the conformance suites, whose members are tests."""
INTERNAL = {
    # Not for callers: how Python and attrs put an object together, copy it and show it.
    *("__attrs_post_init__", "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__"),
    *("__repr__", "__set_name__", "__str__"),
}


def surface(name: str = "trio_durable", source: Path = SOURCE) -> str:
    """All of it, module by module, in the order of names.

    Args:
        name: The package.
        source: The folder that it is in.
    """
    package = griffe.load(
        name, search_paths=[source], try_relative_path=False, resolve_aliases=True
    )
    assert isinstance(package, griffe.Module)
    modules = [module for module in _modules(package) if module.exports is not None]
    public = {thing.canonical_path for module in modules for thing in _offered(module).values()}
    seen: dict[str, str] = {}
    return HEAD + "".join(
        f"\n\nmodule {module.path}\n"
        + "".join(f"\n{text}\n" for text in _names(module, seen, public))
        for module in modules
    )


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for name in sorted(module.modules):
        # One that a module has imported is no part of it, and may be the package itself.
        if not module.modules[name].is_alias:
            yield from _modules(module.modules[name])


def _offered(module: griffe.Module) -> dict[str, griffe.Object]:
    """The public things of a module by their names there, in order."""
    names = {str(name) for name in module.exports or ()} | set(UNLISTED.get(module.path, ()))
    members = {name: module[name] for name in sorted(names)}
    return {
        name: member.final_target if isinstance(member, griffe.Alias) else member
        for name, member in members.items()
    }


def _names(module: griffe.Module, seen: dict[str, str], public: Collection[str]) -> Iterator[str]:
    """What a module offers; the second time that a thing is met, only where the first one is."""
    for name, target in _offered(module).items():
        first = seen.setdefault(target.canonical_path, f"{module.path}.{name}")
        if first != f"{module.path}.{name}":
            yield f"{name} is {first}"
        else:
            yield "\n".join(_lines(target, public))


def _lines(thing: griffe.Object, public: Collection[str]) -> Iterator[str]:
    if isinstance(thing, griffe.Class):
        yield from (f"@{_written(each.value, thing)}" for each in thing.decorators)
        bases = ", ".join(str(base) for base in thing.bases)
        yield f"class {thing.name}({bases})" if bases else f"class {thing.name}"
        for member in _members(thing, public):
            yield from (f"    {line}" for line in _lines(member, public))
    elif isinstance(thing, griffe.Function):
        yield from (f"@{each.value}" for each in thing.decorators)
        for each in thing.overloads or [thing]:
            for parameter in each.parameters:
                parameter.default = _written(parameter.default, thing)
            prefix = "async def" if "async" in thing.labels else "def"
            yield f"{'@overload ' if thing.overloads else ''}{prefix} {each.signature()}"
    elif isinstance(thing, griffe.Attribute):
        yield "".join(_attribute(thing))


def _members(cls: griffe.Class, public: Collection[str]) -> list[griffe.Object]:
    """Those of the class, and of its bases that aren't public; in the order of the fields."""
    found: dict[str, griffe.Object] = {}
    for each in [cls, *(base for base in cls.mro() if _is_part(base, public))]:
        for name, member in each.members.items():
            if isinstance(member, griffe.Object) and not _is_hidden(member):
                found.setdefault(name, member)
    fields = [member for member in found.values() if _is_field(member)]
    others = [member for member in found.values() if not _is_field(member)]
    return fields + sorted(others, key=lambda member: member.name)


def _is_part(base: griffe.Class, public: Collection[str]) -> bool:
    """Whether a base's members are listed with the class: it isn't public, and no mere tests."""
    if base.name.startswith("_"):
        return True
    return base.canonical_path not in public and not base.canonical_path.startswith(SUITES)


def _is_hidden(member: griffe.Object) -> bool:
    """Of what begins with an underscore, methods such as ``__call__`` are all that users reach."""
    is_special_method = member.name.endswith("__") and isinstance(member, griffe.Function)
    return member.name.startswith("_") and (not is_special_method or member.name in INTERNAL)


def _is_field(member: griffe.Object) -> bool:
    """Whether it may be a parameter of ``__init__``, whose place counts."""
    return isinstance(member, griffe.Attribute) and "property" not in member.labels


def _attribute(attribute: griffe.Attribute) -> Iterator[str]:
    labels = attribute.labels
    if "property" in labels:
        yield from ("abstract " if "abstractmethod" in labels else "", "property ")
    yield attribute.name
    if attribute.annotation is not None:
        yield f": {attribute.annotation}"
    # What __init__ gives to it is nobody's business.
    if attribute.value is not None and labels != {"instance-attribute"}:
        yield f" = {_written(attribute.value, attribute)}"


def _written(value: object, where: griffe.Object) -> str | None:
    """An expression as it is written, but where it is only a name, what that stands for."""
    if value is None:
        return None
    text = str(value)
    named = where.module.members.get(text)
    if isinstance(named, griffe.Alias):
        named = named.final_target
    return str(named.value) if isinstance(named, griffe.Attribute) and named.value else text


if __name__ == "__main__":
    RECORD.write_text(surface(), encoding="utf-8", newline="\n")

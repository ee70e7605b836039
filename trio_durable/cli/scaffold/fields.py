"""The fields of a new object, as they are given: ``count:int,name:str``."""

from __future__ import annotations

import attrs

from ..errors import CommandError
from .annotations import CONTAINERS, MODULES, SCALARS, Annotation
from .line_breaks import split_outside_brackets
from .names import check_identifier

NAMES = frozenset({*SCALARS, *CONTAINERS, *MODULES})
"""What the module of an object may use, so that nothing of its own may be called that."""
_RESERVED = frozenset({"after_load", "ctx", "handle_alarm", "self"})


@attrs.frozen
class Field:
    """One of them."""

    name: str
    annotation: Annotation

    @property
    def declaration(self) -> str:
        """What declares it in the body of the class."""
        default = self.annotation.default
        if self.annotation.is_mutable:
            factory = {"[]": "list", "{}": "dict", "set()": "set"}.get(
                default, f"lambda: {default}"
            )
            default = f"attrs.field(factory={factory})"
        return f"{self.name}: {self.annotation.text} = {default}"


def parse_fields(written: str) -> list[Field]:
    """Read fields, which are separated by commas.

    Raises:
        Refusal: One of them can't be a field, or two have the same name.
    """
    fields: dict[str, Field] = {}
    for part in split_outside_brackets(written):
        name, colon, annotation = part.partition(":")
        name = name.rstrip()
        if not name or not colon:
            raise CommandError(f"field {part!r}: write it as name:type, such as count:int")
        check_member("field", name)
        if name in fields:
            raise CommandError(f"field {name!r}: given twice; leave one of them out")
        fields[name] = Field(name, Annotation.parse(name, annotation))
    return list(fields.values())


def check_member(what: str, name: str) -> None:
    """Check that a field or a method can be called by a name.

    Raises:
        Refusal: It can't.
    """
    check_identifier(what, name)
    if name in _RESERVED:
        raise CommandError(f"{what} {name!r}: the name is reserved; choose another one")
    if name in NAMES:
        raise CommandError(
            f"{what} {name!r}: would hide {name} from the rest of the class; choose another name"
        )

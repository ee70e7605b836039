"""Fields of a new object, parsed from the form ``count:int,name:str``."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from ..errors import CommandError
from .annotations import CONTAINERS, MODULES, NAMED_TYPES, Annotation
from .names import check_name
from .rendering import split_items

NAMES = frozenset({*NAMED_TYPES, *CONTAINERS, *MODULES})
"""Names that an object's module may import or use. Its own members can't have them."""


@attrs.frozen
class Field:
    """A field of state."""

    name: str
    annotation: Annotation

    @property
    def declaration(self) -> str:
        """The statement that declares it in the class."""
        default = self.annotation.default
        if self.annotation.is_mutable:
            factories = {"[]": "list", "{}": "dict", "set()": "set"}
            default = f"attrs.field(factory={factories.get(default, f'lambda: {default}')})"
        return f"{self.name}: {self.annotation.text} = {default}"


def parse_fields(written: str) -> list[Field]:
    """Parse fields, which are separated by commas.

    Raises:
        CommandError: A field is invalid, or given twice.
    """
    fields: dict[str, Field] = {}
    for item in split_items(written):
        name, colon, annotation = item.partition(":")
        name = name.rstrip()
        if not name or not colon:
            raise CommandError(f"field {item!r}: write it as name:type, such as count:int")
        check_member("field", name)
        if name in fields:
            raise CommandError(f"field {name!r}: given twice; leave one of them out")
        fields[name] = Field(name, Annotation.parse(name, annotation))
    return list(fields.values())


def check_member(kind: str, name: str, taken: Collection[str] = ()) -> None:
    """Check the name of a field or a method, which can't be one of ``taken``.

    Raises:
        CommandError: A member can't have this name; ``kind`` is for the message.
    """
    would_hide = f"would hide {name} from the rest of the class; choose another name"
    is_reserved = name in ("after_load", "ctx", "handle_alarm", "self")
    check_name(
        kind,
        name,
        (is_reserved, "the name is reserved; choose another one"),
        (name in NAMES, would_hide),
        (name in taken, "a field or a handler has this name; choose another one"),
    )

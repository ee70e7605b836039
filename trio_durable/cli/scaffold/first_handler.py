"""The first handler of a new object, which changes its first field as the field's type suggests."""

from __future__ import annotations

import attrs

from .fields import Field

_NUMBERS = ("int", "float", "Decimal", "timedelta")


@attrs.frozen
class FirstHandler:
    """A handler. Called on a new object, it gives the field the example of its type."""

    name: str
    parameters: str
    """With annotations, as in the signature."""
    statement: str
    """The change."""
    summary: str
    arguments: str
    """Expressions of an example, as in a call."""
    result: str = "None"
    """The annotation of the result."""
    returned: str = ""
    """The last statement, of a handler with a result."""

    @classmethod
    def of(cls, field: Field) -> FirstHandler:
        """The handler that suits a field."""
        name, annotation = field.name, field.annotation
        examples = ", ".join(each.example for each in annotation.items)
        match annotation.name, [each.text for each in annotation.items]:
            case ("list", [item]):
                append = f"self.{name}.append(item)"
                return cls("append", f"item: {item}", append, "Append an item.", examples)
            case ("set", [item]):
                add = f"self.{name}.add(item)"
                return cls("add", f"item: {item}", add, "Add an item.", examples)
            case ("dict", [key, value]):
                put = f"self.{name}[key] = value"
                parameters = f"key: {key}, value: {value}"
                return cls("put", parameters, put, "Put a value at a key.", examples)
            case (number, _) if number in _NUMBERS:
                return cls(
                    "add",
                    f"amount: {number}",
                    f"self.{name} += amount",
                    "Add an amount, and return the sum.",
                    annotation.example,
                    number,
                    f"return self.{name}",
                )
        return cls(
            f"set_{name}",
            f"{name}: {annotation.text}",
            f"self.{name} = {name}",
            "Change one field.",
            annotation.example,
        )

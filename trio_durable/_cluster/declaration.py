"""Declarations of a handler's values: the types by which another process has written them.

Two processes may run different releases during a deployment. Data doesn't tell a ``str`` from
``bytes``, so values that aren't plain JSON travel with their declaration, as stored state does. If
that is the receiver's own, which is compared as text, the values are read directly; else by a
reader of the pair, see `resolution`, which keeps the value or refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from .._json.errors import Unfit
from .._json.forms import PLAIN, Form, Reader, Table
from .._json.resolution import Resolution
from .._json.terms import are_terms

ARGS, KWARGS, RESULT = "*", "**", "return"
"""Names of ``*args``, ``**kwargs`` and the result in a declaration. Any other parameter has its own
name, with a slash in front if it takes no keyword."""
_MAX_DECLARATIONS = 64
"""Declarations of other releases whose readers are kept."""


class Declaration:
    """The declaration of a handler's parameters, or of its result.

    Args:
        positional: The names of the positional parameters, in order.
        forms: The forms of all values, by name.
    """

    def __init__(self, positional: Sequence[str], forms: Mapping[str, Form]) -> None:
        table = Table()
        terms = {name: table.term(form) for name, form in forms.items()}
        self.text: str | None = None
        """The JSON that travels with the values; None if all of them are plain JSON."""
        if any(term != PLAIN for term in terms.values()):
            self.text = orjson.dumps([list(positional), terms, table.classes]).decode()
        self._others: dict[str | None, Recorded] = {}

    def other(self, text: object) -> Recorded:
        """A declaration that came with values.

        Raises:
            Unfit: It is none.
        """
        if text is not None and type(text) is not str:
            raise Unfit("the declaration of the values is no text")
        found = self._others.get(text)
        if found is None:
            if len(self._others) >= _MAX_DECLARATIONS:
                self._others.clear()
            found = self._others[text] = Recorded(text)
        return found


class Recorded:
    """The declaration of another release.

    Args:
        text: The declaration; None for plain JSON.

    Raises:
        Unfit: It is no declaration.
    """

    def __init__(self, text: str | None) -> None:
        self._positional: list[str] = []
        self._terms: dict[str, Any] = {}
        classes: dict[str, Any] = {}
        if text is not None:
            match orjson.loads(text):
                case [list() as names, dict() as terms, dict() as classes, *_] if all(
                    type(name) is str for name in names
                ) and are_terms(terms, classes):
                    self._positional, self._terms = names, terms
                case _:
                    raise Unfit("the declaration of the values can't be read")
        self._resolution = Resolution(classes)
        self._readers: dict[tuple[str, Form], Reader] = {}

    def reader(self, place: int | str, form: Form) -> Reader:
        """The reader of a value as one of a form of the present release.

        Args:
            place: The position of the argument, its keyword, or `RESULT`.
            form: The form.
        """
        name = self._name(place)
        reader = self._readers.get((name, form))
        if reader is None:
            term = self._terms.get(name, PLAIN)
            reader = self._readers[name, form] = self._resolution.reader(term, form)
        return reader

    def _name(self, place: int | str) -> str:
        if isinstance(place, str):
            return place if place in self._terms else KWARGS
        return self._positional[place] if place < len(self._positional) else ARGS

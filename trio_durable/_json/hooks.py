"""Types with hooks of the user, such as those of a converter.

A hook is under read-back: each value that is written is read again, and compared by its storage
and by its JSON with the one that was written. That costs about five times as much as a form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from .._text import short_repr
from .comparison import storage_of
from .errors import Unfit, as_unfit, expected
from .forms import NOTHING, Places, Table, Taken, Term
from .names import stored_name
from .namespaces import annotation_text
from .plain import write_json
from .scalars import Scalar


class HookForm(Scalar):
    """The form of a type with hooks of the user.

    Args:
        tp: The type.
        write: Its unstructure hook.
        read: Its structure hook.
    """

    __slots__ = ("_read_value", "_tp", "_write_value", "former")

    def __init__(
        self, tp: Any, write: Callable[[Any], Any], read: Callable[[Any, Any], Any]
    ) -> None:
        is_class = isinstance(tp, type)
        name = stored_name(tp) if is_class else None
        super().__init__(
            annotation_text(tp) if name is None else name.name,
            frozenset({tp}) if is_class else NOTHING,
            self._write,
            self._read,
        )
        self.former: tuple[str, ...] = () if name is None else name.former
        self._tp = tp
        self._write_value = write
        self._read_value = read

    def term(self, table: Table) -> Term:
        """See `Form.term`. It isn't the one of our own form of the type."""
        return ["hook", self.name]

    def is_unbounded(self) -> bool:
        """See `Form.is_unbounded`."""
        return True

    def _write(self, value: Any, places: Places) -> Any:
        if isinstance(self._tp, type) and not isinstance(value, self._tp):
            raise expected(self.name, value)
        stored = storage_of(value, places)
        encoded = self._encoded(value)
        try:
            read = self._read_value(orjson.loads(encoded), self._tp)
        except Exception as error:
            problem = f"the converter can't read {short_repr(value)} back"
            raise Unfit(f"{problem}: {as_unfit(error).problem}") from error
        if storage_of(read) != stored or self._encoded(read) != encoded:
            raise Unfit(
                f"{short_repr(value)} would be read back as {short_repr(read)} by the converter's "
                f"hooks for {self.name}"
            )
        return orjson.loads(encoded)  # shares nothing with the value

    def _read(self, data: Any, _: Taken) -> Any:
        return self._read_value(data, self._tp)

    def _encoded(self, value: Any) -> bytes:
        data = self._write_value(value)
        if data is None:
            raise Unfit("the converter writes it as null, which means None; write anything else")
        return orjson.dumps(write_json(data, []))

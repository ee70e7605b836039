"""Structs of msgspec, which are read through their slots and built by their constructor.

No other code can make an instance of a Struct. The constructor is written in C and stores the
values of its arguments, unless the class has a ``__post_init__`` or another metaclass. Each value
of such a class is built from its JSON when it is written, and compared: by its storage, and by its
JSON.

Options of the encoders of msgspec, such as ``rename``, ``tag`` and ``array_like``, have no effect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import orjson

from .._text import short_repr
from .comparison import is_same
from .errors import Unfit, as_unfit
from .forms import Form, Places, Taken, Writer
from .layout import stores_plainly
from .records import RecordForm


class StructForm(RecordForm):
    """The form of a Struct.

    Args:
        cls: The class.
        name: The name by which unions and declarations know it.
        former: Names that it had before.

    Raises:
        UnsupportedType: The class's storage isn't its fields.
    """

    __slots__ = ("_write_fields",)

    _write_fields: Writer

    def define(self, fields: Mapping[str, Form]) -> None:
        """See `RecordForm.define`."""
        super().define(fields)
        self.read = self._read
        if not stores_plainly(self.cls):
            self._write_fields = self.write
            self.write = self._write_checked

    def build(self, values: Mapping[str, Any], taken: Taken) -> Any:
        """See `RecordForm.build`. The constructor runs, and with it ``__post_init__``.

        Raises:
            Unfit: A field without a default is missing, or the constructor refuses a value.
        """
        made = dict(values)
        for name, default in self.takes_defaults.items():
            if name not in made:
                made[name] = default.make(None, taken)
        return self.cls(**made)

    def validated(self, data: Any) -> Any:
        """An instance from plain JSON of unknown origin, which msgspec checks and converts.

        Raises:
            Unfit: msgspec refuses it.
        """
        msgspec: Any = sys.modules["msgspec"]
        try:
            return msgspec.convert(data, self.cls)
        except Exception as error:  # __post_init__ may raise anything
            raise as_unfit(error) from error

    def _write_checked(self, value: Any, places: Places) -> Any:
        data = self._write_fields(value, places)
        encoded = orjson.dumps(data)
        try:
            read = self.read(orjson.loads(encoded), [])
        except Exception as error:
            unfit = as_unfit(error)
            unfit.problem = f"it can't be read back: {unfit.problem}"
            raise unfit from error
        if not is_same(read, value) or orjson.dumps(self._write_fields(read, [])) != encoded:
            raise Unfit(
                f"{short_repr(value)} would be read back as {short_repr(read)}; let the "
                "__post_init__ of its class keep values that it has made itself"
            )
        return data

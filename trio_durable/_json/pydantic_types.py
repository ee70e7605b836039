"""Types of pydantic that aren't models: secrets, URLs, and names for types of Python.

pydantic is no dependency: these types exist only where it is imported.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any

from .._text import short_repr
from .errors import Unfit, expected
from .forms import Places, Taken
from .scalars import Scalar
from .texts import text_form

_STAND_FOR: Mapping[str, Any] = {
    "AwareDatetime": datetime,
    "EmailStr": str,
    "FutureDate": date,
    "FutureDatetime": datetime,
    "IPvAnyAddress": IPv4Address | IPv6Address,
    "IPvAnyInterface": IPv4Interface | IPv6Interface,
    "IPvAnyNetwork": IPv4Network | IPv6Network,
    "Json": Any,
    "NaiveDatetime": datetime,
    "PastDate": date,
    "PastDatetime": datetime,
}
"""The types of the values of annotations that aren't types of values themselves, by name."""


def type_of_pydantic(cls: type) -> Any:
    """The type of the values that an annotation of pydantic stands for; None for other classes."""
    pydantic = sys.modules.get("pydantic")
    name = cls.__name__
    if pydantic is None or name not in _STAND_FOR or getattr(pydantic, name, None) is not cls:
        return None
    return _STAND_FOR[name]


def form_of_pydantic(cls: Any) -> Scalar | None:
    """The form of a secret or a URL; None for other classes.

    A secret is stored as it is, not encrypted and not as the asterisks of its repr.
    """
    name = cls.__name__
    if cls.__module__ == "pydantic.types":
        pydantic: Any = sys.modules["pydantic"]
        if cls is pydantic.SecretStr:
            return text_form(cls, "a secret", _secret_text, cls, name)
        return _form_of_secret_bytes(cls) if cls is pydantic.SecretBytes else None
    # The bases of URLs with one host and with several have no public name.
    is_url = hasattr(cls, "unicode_string") and any(
        base.__module__ == "pydantic.networks" for base in cls.__mro__
    )
    return text_form(cls, "a URL", _url_writer(cls), cls, name) if is_url else None


def _secret_text(secret: Any) -> str:
    text = secret.get_secret_value()
    if type(text) is not str:
        raise expected("str", text)
    return text


def _form_of_secret_bytes(cls: Any) -> Scalar:
    def write(value: Any, _: Places) -> str:
        if type(value) is not cls or type(value.get_secret_value()) is not bytes:
            raise expected(cls.__name__, value)
        return base64.b64encode(value.get_secret_value()).decode()

    def read(data: Any, _: Taken) -> Any:
        if type(data) is not str:
            raise expected("str", data)
        try:
            return cls(base64.b64decode(data, validate=True))
        except ValueError as error:
            raise Unfit("it is not bytes in base64") from error

    # Not as text: like bytes, it is never read from the text of another type.
    return Scalar(cls.__name__, frozenset({cls}), write, read)


def _url_writer(cls: Any) -> Callable[[Any], str]:
    def write(url: Any) -> str:
        text = str(url)
        if str(cls(text)) != text:
            raise Unfit(f"{short_repr(url)} is read back as {short_repr(cls(text))}")
        return text

    return write

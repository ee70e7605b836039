"""The codec of messages: arguments by the names of the parameters, as JSON.

A message may wait for longer than a release lives. So its arguments are named, and defaults aren't
filled in: a release may add a parameter that has one, or let a keyword become positional. The data
is ``[{name: value}]`` or ``[{name: value}, rest, declaration]``, with ``rest`` for ``*args``. A
parameter that takes no keyword has a slash in front of its name. The forms of values are those of
calls, see `call_codec`, and so are declarations.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any

import orjson

from .._activations.object_type import ObjectType
from .._cluster.declaration import ARGS
from .._cluster.handles import HandleForms, Handles
from .._cluster.parameters import Mismatch, Parameters, handler_forms
from .._declarations.records import HandlerDefinition
from .._json.depth import check_depth
from .._json.errors import Unfit, as_unfit
from .._json.forms import Form
from .._messages.request import MAX_MESSAGE_BYTES

Arguments = tuple[tuple[object, ...], dict[str, object]]


class MessageCodec:
    """The codec of the messages to one handler.

    Args:
        parameters: The parameters of the handler.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._forms = parameters.forms()
        self._declaration = parameters.declaration()
        self._leading = parameters.declared_names()
        """The positional parameters, as messages name them."""
        self._has_positional_only = any(name.startswith("/") for name in self._leading)
        exact = {name: form.exact - {dict, list} for name, form in self._forms.items()}
        self._exact = [(name, exact[name]) for name in self._leading]
        """The types of positional arguments that are their own JSON, which most arguments are."""
        is_simple = self._forms.keys() == parameters.named.keys() and not self._declaration.text
        self._exact_by_name = exact if is_simple else None
        """The same by name, if there is nothing but parameters that take a keyword."""

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Arguments as JSON.

        Raises:
            Unfit: They don't fit the handler, or can't be written, or are too large.
        """
        by_name, rest = self._by_name(args, kwargs)
        data: list[object] = [by_name]
        if rest or self._declaration.text is not None:
            data += [rest, self._declaration.text]
        return _dumped(data)

    @cached_property
    def signature(self) -> str:
        """A digest of the parameters. Digests of arguments can be compared under one only."""
        text = f"{self._parameters.signature}\n{self._declaration.text}"
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def digest(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """A digest of arguments as they are given, which doesn't depend on the order of names.

        Raises:
            Unfit: They don't fit the handler, or can't be written.
        """
        return _digest(*self._by_name(args, kwargs))

    def digest_of(self, arguments: bytes) -> str:
        """`digest`, of arguments that `encode` has encoded.

        Raises:
            Unfit: They aren't arguments.
        """
        by_name, rest, _ = _parts(orjson.loads(arguments))
        return _digest(by_name, rest)

    def _by_name(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> tuple[dict[str, object], list[object]]:
        """Arguments by the names of their parameters, and those of ``*args``, in plain JSON."""
        if not kwargs and self._parameters.fewest <= len(args) <= len(self._exact):
            by_name: dict[str, object] = {}
            for (name, exact), value in zip(self._exact, args, strict=False):
                if type(value) not in exact:
                    break
                by_name[name] = value
            else:
                return by_name, []
        self._check(len(args), kwargs.keys())
        places: list[int] = []
        by_name = {
            name: self._write(name, value, places)
            for name, value in zip(self._leading, args, strict=False)
        }
        rest = [self._write(ARGS, value, places) for value in args[len(self._leading) :]]
        for name, value in kwargs.items():
            by_name[name] = self._write(name, value, places)
        return by_name, rest

    def decode(self, data: bytes) -> Arguments:
        """The arguments of a message that any release has sent.

        Raises:
            Unfit: They don't fit the handler any more, or not yet.
        """
        found = orjson.loads(data)
        if (values := self._complete(found)) is not None:
            return (), values
        by_name, rest, declaration = _parts(found)
        is_own = declaration == self._declaration.text
        recorded = None if is_own else self._declaration.other(declaration)

        def read(name: str, value: object) -> object:
            form = self._form(name)
            reader = form.read if recorded is None else recorded.reader(name, form)
            try:
                return reader(value, [])
            except Exception as error:  # validators may raise anything
                raise as_unfit(error).within(f"the argument {name.lstrip('/')}") from error

        values = {name: read(name, value) for name, value in by_name.items()}
        args: list[object] = []
        if rest or self._has_positional_only:
            for name in self._leading:
                if name not in values or (not rest and not name.startswith("/")):
                    break
                args.append(values.pop(name))
            args += [read(ARGS, value) for value in rest]
        self._check(len(args), values.keys())
        return tuple(args), values

    def _complete(self, data: object) -> dict[str, object] | None:
        """The arguments in ``data``, if it has all of them and they are what they are in JSON."""
        exact = self._exact_by_name
        if exact is None or not (isinstance(data, list) and len(data) == 1):
            return None
        [by_name] = data
        if not isinstance(by_name, dict) or len(by_name) != len(exact):
            return None
        for name, value in by_name.items():
            if name not in exact or type(value) not in exact[name]:
                return None
        return by_name

    def _check(self, count: int, keywords: KeysView[str]) -> None:
        try:
            self._parameters.check(count, keywords)
        except Mismatch as error:
            raise Unfit(str(error)) from None

    def _write(self, name: str, value: object, places: list[int]) -> object:
        try:
            return _written(self._form(name), value, places)
        except Exception as error:  # hooks and validators may raise anything
            raise as_unfit(error).within(f"the argument {name.lstrip('/')}") from error

    def _form(self, name: str) -> Form:
        form = self._forms.get(name, self._parameters.kwargs)
        if form is None:
            raise Unfit(f"it has no parameter {name.lstrip('/')}")
        return form


class MessageCodecs:
    """The codecs of the messages to objects of one runtime, each made when it is first needed.

    Args:
        handles: The handles of the runtime.
    """

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._made: dict[tuple[ObjectType, str], MessageCodec] = {}

    def of(self, object_type: ObjectType, handler: HandlerDefinition) -> MessageCodec:
        """The codec of one handler.

        Raises:
            DefinitionError: Values of a parameter or of the result can't be sent.
        """
        found = self._made.get((object_type, handler.name))
        if found is None:
            forms = HandleForms(object_type.forms, self._handles).forms
            parameters, _ = handler_forms(object_type, forms, handler)
            found = self._made[object_type, handler.name] = MessageCodec(parameters)
        return found


def _written(form: Form, value: Any, places: list[int]) -> object:
    written = value if type(value) in form.exact else form.write(value, places)
    if type(written) in (dict, list):
        check_depth(written)
    return written


def _digest(by_name: dict[str, object], rest: list[object]) -> str:
    data = orjson.dumps([by_name, rest], option=orjson.OPT_SORT_KEYS)
    return blake2b(data, digest_size=16).hexdigest()


def _dumped(data: object) -> bytes:
    encoded = orjson.dumps(data)
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise Unfit(
            f"it takes {len(encoded):,} bytes of JSON, over the limit of {MAX_MESSAGE_BYTES:,}; "
            "keep the data in an object's state, and send where it is"
        )
    return encoded


def _parts(data: object) -> tuple[dict[str, object], list[object], str | None]:
    match data:
        case [dict() as by_name]:
            return by_name, [], None
        case [dict() as by_name, list() as rest, (None | str()) as declaration, *_]:
            return by_name, rest, declaration
    raise Unfit("it has no arguments that can be read")

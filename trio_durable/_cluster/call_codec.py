"""The codec of calls: arguments and replies of handlers as JSON, by the handlers' annotations.

The forms are those of state. A value arrives exactly as it was sent, or is refused where it is
sent, by handler, parameter and reason. A parameter or result without an annotation is one of
``Any``, which takes plain JSON.

Objects of the caller's own process get the same. `HandlerCodec.local_arguments` and
`HandlerCodec.local_reply` encode and decode the values, except scalars that would arrive as they
are, so a value doesn't depend on the object's place, nor does its refusal. A runtime without a
cluster doesn't use this codec: it copies arguments by their own types, see `by_value`, and takes
others than the annotations say, such as a tuple for a ``list``.

The data of a call is ``[args]``, ``[args, kwargs]`` or ``[args, kwargs, declaration]``. That of a
reply is ``[result]`` or ``[result, declaration]``; see `declaration`. A receiver ignores further
elements. An argument that isn't given isn't sent either: the default is that of the process in
which the object lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import orjson

from .._activations.by_value import refusal_of
from .._activations.object_type import ObjectType
from .._errors import ArgumentError, ReplyDecodeError, ReplyError
from .._json.depth import MAX_DEPTH, check_depth
from .._json.errors import Unfit, as_unfit
from .._json.forms import NOTHING, Form, Reader, nests
from .._json.scalars import FLOAT
from .._keys import ObjectKey
from .declaration import RESULT, Declaration
from .handles import HandleForms, Handles
from .parameters import Mismatch, Parameters, handler_forms

Arguments: TypeAlias = "tuple[tuple[object, ...], dict[str, object]]"

DEFAULT_MAX_SIZE = 16 * 1024 * 1024
_LEAST, _GREATEST = -(2**53), 2**53
"""Ints between these have JSON, and are exact as floats."""
_ADVICE = "; write an @upgrade"
"""The advice of errors about state that another release wrote."""
_LONGEST_PATH = 100
_NO_ARGUMENTS = b"[[]]"
_ESCAPED = 6
"""The most characters of JSON that one ASCII character takes."""


class CallCodec:
    """The codecs of the handlers of one type of objects: the `Exchange` of the type.

    The router of the type keeps it, with all forms, so nothing outlives the runtime.

    Args:
        object_type: The type.
        handles: The handles of the runtime.
        max_size: The most bytes of JSON that the arguments of a call, or a reply, may take.

    Raises:
        DefinitionError: Values of a handler's parameter or result can't be sent to another process.
    """

    def __init__(
        self, object_type: ObjectType, handles: Handles, max_size: int = DEFAULT_MAX_SIZE
    ) -> None:
        forms = HandleForms(object_type.forms, handles).forms
        self.fitting: dict[str, HandlerCodec] = {
            name: HandlerCodec(name, *handler_forms(object_type, forms, handler), max_size)
            for name, handler in object_type.handlers.items()
        }
        """See `Exchange.fitting`."""

    def handler(self, name: str) -> HandlerCodec:
        """The codec of a handler."""
        return self.fitting[name]

    def arguments(
        self,
        key: Callable[[], ObjectKey],
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Arguments:
        """See `Exchange.arguments`."""
        return self.fitting[handler].local_arguments(key, args, kwargs)

    def result(self, key: ObjectKey, handler: str, result: object) -> object:
        """See `Exchange.result`. The results of turns that aren't a handler's are None."""
        codec = self.fitting.get(handler)
        return result if codec is None else codec.local_reply(key, result)


class HandlerCodec:
    """The codec of the calls of one handler, and the `Replies` of those by other processes.

    Args:
        name: The handler's name.
        parameters: Its parameters.
        result: The form of its result.
        max_size: See `CallCodec`.
        advice: The end of the error about larger data.
    """

    __slots__ = (
        "_advice",
        "_atoms",
        "_atoms_by_name",
        "_declaration",
        "_end",
        "_fewest",
        "_forms",
        "_longest",
        "_max_size",
        "_most",
        "_nests",
        "_parameters",
        "_result",
        "_result_atoms",
        "_result_declaration",
        "_result_end",
        "_result_nests",
        "name",
    )

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        result: Form,
        max_size: int,
        advice: str = "of a message; send less, or raise max_frame",
    ) -> None:
        self.name: str = name
        self._advice = advice
        self._parameters = parameters
        self._result = result
        self._max_size = max_size
        self._forms = tuple(parameters.positional.values())
        self._nests = any(map(nests, parameters.forms().values()))
        self._result_nests = nests(result)
        self._declaration = parameters.declaration()
        self._result_declaration = Declaration((), {RESULT: result})
        self._end = _end(self._declaration)
        self._result_end = _end(self._result_declaration)
        # Calls by position need no further check if they have this many arguments.
        leading = [name for name in parameters.positional if name in parameters.required]
        self._fewest, self._most = len(leading), len(self._forms)
        if not parameters.required.issubset(leading):
            self._fewest = self._most + 1
        self._atoms = tuple(map(_atoms_of, self._forms))
        self._atoms_by_name = {name: _atoms_of(form) for name, form in parameters.named.items()}
        self._result_atoms = _atoms_of(result)
        # The longest text that can't exceed the size, however it is escaped.
        self._longest = max_size // (_ESCAPED * (len(parameters.forms()) + 1)) - 32

    # --- arguments -------------------------------------------------------------------------------

    def encode_arguments(
        self, key: Callable[[], ObjectKey], args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> bytes:
        """The JSON of a call's arguments.

        Args:
            key: Returns the object's key, for errors.
            args: The positional arguments.
            kwargs: The keyword arguments.

        Raises:
            ArgumentError: The handler doesn't take them, or one can't be sent.
        """
        try:
            if not args and not kwargs and not self._fewest and not self._end:
                return _NO_ARGUMENTS
            return self._encoded(args, kwargs)
        except Exception as error:  # hooks and validators may raise anything
            raise ArgumentError(key(), self.name, self._problem(error, args, kwargs)) from error

    def decode_arguments(self, key: Callable[[], ObjectKey], data: object) -> Arguments:
        """The arguments of a call, from parsed JSON, which may be anything.

        Args:
            key: Returns the object's key, for errors.
            data: The data of `encode_arguments`, of any release.

        Raises:
            ArgumentError: The handler doesn't take them, or the data isn't that of arguments.
        """
        try:
            if type(data) is list and data and type(data[0]) is list:
                if len(data) == 1:
                    return self._read(data[0], {}, None)
                if type(data[1]) is dict:
                    return self._read(data[0], data[1], data[2] if len(data) > 2 else None)
            raise Unfit("it has no arguments that can be read")
        except Exception as error:  # validators may raise anything
            raise ArgumentError(key(), self.name, _text(error)) from error

    def local_arguments(
        self, key: Callable[[], ObjectKey], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Arguments:
        """The arguments of a call in this process: what another process would get.

        Args:
            key: Returns the object's key, for errors.
            args: The positional arguments.
            kwargs: The keyword arguments, in a dict of their own.

        Raises:
            ArgumentError: The handler doesn't take them, or one could not be sent.
        """
        if self._are_themselves(args, kwargs) if kwargs else self.takes(args):
            return args, kwargs
        data = orjson.loads(self.encode_arguments(key, args, kwargs))
        return self.decode_arguments(key, data)

    def takes(self, args: tuple[object, ...]) -> bool:
        """See `Fitting.takes`."""
        if not args:
            return not self._fewest
        return self._fewest <= len(args) <= self._most and self._are_positional(args)

    def _are_positional(self, args: tuple[object, ...]) -> bool:
        """True if another process would get the same objects, which are not too many."""
        return all(map(_is_itself, args, self._atoms, repeat(self._longest)))

    def _are_themselves(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
        """True if the arguments fit the handler, and another process would get the same objects."""
        if len(args) > self._most or not self._are_positional(args):
            return False
        for name, value in kwargs.items():
            if not _is_itself(value, self._atoms_by_name.get(name, NOTHING), self._longest):
                return False
        try:
            self._parameters.check(len(args), kwargs.keys())
        except Mismatch:
            return False
        return True

    def _encoded(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        if kwargs or not self._fewest <= len(args) <= self._most:
            self._parameters.check(len(args), kwargs.keys())
        places: list[int] = []
        forms = self._positional(len(args))
        data: list[Any] = [
            [  # by index, since zip() takes longer than all else
                value if type(value) in (form := forms[index]).exact else form.write(value, places)
                for index, value in enumerate(args)
            ]
        ]
        if kwargs:
            other: Any = self._parameters.kwargs
            named: Mapping[str, Any] = self._parameters.named
            data.append(
                {name: named.get(name, other).write(each, places) for name, each in kwargs.items()}
            )
        elif self._end:
            data.append({})
        if self._nests:
            for value in (*data[0], *(data[1].values() if kwargs else ())):
                check_depth(value, MAX_DEPTH)
        return self._sized(orjson.dumps(data), self._end)

    def _positional(self, count: int) -> Sequence[Form]:
        forms = self._forms
        if count <= len(forms):
            return forms
        assert self._parameters.args is not None  # `check` has refused them
        return (*forms, *[self._parameters.args] * (count - len(forms)))

    def _each(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, int | str, Form, Any]]:
        """The name for errors, the place, the form and the value of each argument."""
        names = self._parameters.names
        for index, (form, value) in enumerate(zip(self._positional(len(args)), args, strict=False)):
            yield names[index] if index < len(names) else f"{index + 1}", index, form, value
        for name, value in kwargs.items():
            by_name: Mapping[str, Any] = self._parameters.named
            yield name, name, by_name.get(name, self._parameters.kwargs), value

    def _read(self, args: list[Any], kwargs: dict[str, Any], declaration: object) -> Arguments:
        if kwargs or not self._fewest <= len(args) <= self._most:
            self._parameters.check(len(args), kwargs.keys())
        elif not args and declaration == self._declaration.text:
            return (), {}
        recorded = None
        if declaration != self._declaration.text:
            recorded = self._declaration.other(declaration)
        else:
            forms, other = self._positional(len(args)), self._parameters.kwargs
            by_name: Mapping[str, Any] = self._parameters.named
            try:
                positional = [
                    value if type(value) in (form := forms[index]).exact else form.read(value, [])
                    for index, value in enumerate(args)
                ]
                if not kwargs:
                    return tuple(positional), {}
                named = {
                    name: by_name.get(name, other).read(value, []) for name, value in kwargs.items()
                }
                return tuple(positional), named
            except Exception:  # noqa: BLE001, S110  # below, with the parameter's name
                pass
        made: dict[int | str, Any] = {}
        for name, place, form, value in self._each(args, kwargs):
            read: Reader = form.read if recorded is None else recorded.reader(place, form)
            try:
                made[place] = read(value, [])
            except Exception as error:  # validators may raise anything
                raise as_unfit(error).within(f"the argument {name}") from error
        positional = [made[index] for index in range(len(args))]
        return tuple(positional), {name: made[name] for name in kwargs}

    def _problem(self, error: Exception, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The reason why arguments couldn't be encoded, with the name of the one that can't be."""
        if not isinstance(error, (Mismatch, _TooLarge)):
            for name, _, form, value in self._each(args, kwargs):
                problem = _problem_of(form, value, name)
                if problem is not None:
                    return f"the argument {problem}"
        return _text(error)

    # --- replies ---------------------------------------------------------------------------------

    def result(self, key: ObjectKey, handler: str, result: object) -> bytes:
        """See `Replies.result`: the result as JSON."""
        return self.encode_reply(key, result)

    def encode_reply(self, key: ObjectKey, result: object) -> bytes:
        """The JSON of a handler's result. Call it in the turn, which is rolled back if it raises.

        Raises:
            ReplyError: The result can't be sent.
        """
        form = self._result
        try:
            data = result if type(result) in form.exact else form.write(result, [])
            if self._result_nests:
                check_depth(data, MAX_DEPTH)
            return self._sized(orjson.dumps((data,)), self._result_end)
        except Exception as error:  # hooks and validators may raise anything
            problem = None if isinstance(error, _TooLarge) else _problem_of(form, result)
            raise ReplyError(key, self.name, problem or _text(error)) from error

    def decode_reply(self, key: Callable[[], ObjectKey], data: object) -> Any:
        """The result of a handler, from parsed JSON, which may be anything.

        Args:
            key: Returns the object's key, for errors.
            data: The data of `encode_reply`, of any release.

        Raises:
            ReplyDecodeError: It isn't data of the handler's result.
        """
        form = self._result
        try:
            if type(data) is not list or not data:
                raise Unfit("it is no reply")
            value, declaration = data[0], data[1] if len(data) > 1 else None
            if declaration == self._result_declaration.text:
                return value if type(value) in form.exact else form.read(value, [])
            return self._result_declaration.other(declaration).reader(RESULT, form)(value, [])
        except Exception as error:  # validators may raise anything
            raise ReplyDecodeError(key(), self.name, _text(error)) from error

    def passes(self, result: object) -> bool:
        """See `Fitting.passes`."""
        return _is_itself(result, self._result_atoms, self._longest)

    def local_reply(self, key: ObjectKey, result: object) -> Any:
        """The result of a handler for a caller in this process: what another would get.

        Raises:
            ReplyError: The result could not be sent.
        """
        if self.passes(result):
            return result
        data = orjson.loads(self.encode_reply(key, result))
        try:
            return self.decode_reply(lambda: key, data)
        except ReplyDecodeError as error:  # by a validator that doesn't always say the same
            raise ReplyError(key, self.name, error.problem) from error

    def _sized(self, encoded: bytes, end: bytes) -> bytes:
        """Encoded data with its end.

        Raises:
            _TooLarge: It is too large.
        """
        if end:
            encoded = encoded[:-1] + end
        if len(encoded) > self._max_size:
            raise _TooLarge(
                f"it takes {len(encoded):,} bytes of JSON, over the limit of {self._max_size:,} "
                f"{self._advice}"
            )
        return encoded


class _TooLarge(ValueError):
    pass


def _end(declaration: Declaration) -> bytes:
    """The end of data that has a declaration."""
    return b"" if declaration.text is None else b"," + orjson.dumps(declaration.text) + b"]"


def _atoms_of(form: Form) -> frozenset[type]:
    """The types of a form's values that are immutable, and their own JSON within bounds."""
    return FLOAT.types if form is FLOAT else form.exact


def _is_itself(value: Any, atoms: frozenset[type], longest: int) -> bool:
    """True if another process would get the same value, and its size is bounded.

    Args:
        value: The value.
        atoms: See `_atoms_of`.
        longest: The most characters of a text.
    """
    kind = type(value)
    if kind not in atoms:
        return False
    if kind is int:
        return bool(_LEAST <= value <= _GREATEST)
    if kind is str:
        return len(value) <= longest and value.isascii()
    return kind is not float or bool(value - value == 0.0)


def _problem_of(form: Form, value: Any, name: str = "") -> str | None:
    """The reason why a value can't be encoded, after the path to it; None if it can."""
    try:
        data = form.write(value, [])
        check_depth(data, MAX_DEPTH)
        orjson.dumps(data)
    except Exception as error:  # noqa: BLE001  # hooks and validators may raise anything
        return _explained(error, type(value), name)
    return None


def _explained(error: Exception, kind: type, name: str) -> str:
    unfit = as_unfit(error)
    if isinstance(error, orjson.JSONEncodeError):
        unfit = Unfit(str(error))
    if not unfit.path:
        unfit.problem = refusal_of(kind) or unfit.problem
    return _text(unfit.within(name))


def _text(error: Exception) -> str:
    """The text of an error, after the path to the value."""
    if isinstance(error, (Mismatch, _TooLarge)):
        return str(error)
    unfit = as_unfit(error)
    problem = unfit.problem
    if problem.endswith(_ADVICE):
        problem = f"{problem.removesuffix(_ADVICE)}; deploy the same release of the class"
    path = unfit.path if len(unfit.path) <= _LONGEST_PATH else f"{unfit.path[: _LONGEST_PATH - 1]}…"
    return f"{path}: {problem}" if path else problem

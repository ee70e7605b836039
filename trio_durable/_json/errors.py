"""Errors that forms raise. Forms don't know the object; the codec adds it."""

from __future__ import annotations

from .._text import error_summary, short_repr


class Unfit(ValueError):
    """A value that JSON can't represent exactly, or that doesn't fit its type.

    Args:
        problem: The reason, and what to do.
        path: The path from the value being written or read to the part that doesn't fit, such as
            ``[3].price``.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: str = path

    def within(self, step: str) -> Unfit:
        """The same error, with ``step`` in front of its path."""
        self.path = step + self.path
        return self


class UnsupportedType(TypeError):
    """An annotation whose values have no exact JSON."""

    member: str = ""
    """The member of the outermost class."""

    def within(self, owner: str, member: str) -> UnsupportedType:
        """The same error, which names the ``member`` of the class ``owner`` with the annotation."""
        self.args = (f"{self.member}: {self}" if self.member else str(self),)
        self.member = f"{owner}.{member}"
        return self


class UnknownType(UnsupportedType):
    """A class that has no form of ours. A converter may have hooks for it."""


def expected(what: str, value: object) -> Unfit:
    """The error of a ``value`` that isn't of the declared type ``what``."""
    if type(value).__name__ == what:
        what = f"the {what} that is declared"
    return Unfit(f"{short_repr(value)} is of type {type(value).__name__}, not {what}")


def as_unfit(error: Exception) -> Unfit:
    """``error`` as an `Unfit`."""
    if isinstance(error, Unfit):
        return error
    if isinstance(error, RecursionError):
        return Unfit("it is nested too deeply, or contains itself")
    if isinstance(error, KeyError):
        return Unfit(f"{error} is missing")
    return Unfit(error_summary(error))

"""Errors of the codec, before they name an object."""

from __future__ import annotations

from .._text import error_summary, short_repr


class Unfit(ValueError):
    """A value that can't be carried exactly; ``path`` leads to it from where encoding began."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.located = False
        """The field of the class at hand is in the path already."""

    def within(self, step: str) -> Unfit:
        """The same, seen from one level further out."""
        self.path = step + self.path
        return self


class UnsupportedType(TypeError):
    """An annotation that there is no exact JSON for."""


def expected(what: str, value: object) -> Unfit:
    """The error of a ``value`` that isn't ``what`` its field declares."""
    return Unfit(f"{short_repr(value)} is of type {type(value).__name__}, not {what}")


def as_unfit(error: Exception) -> Unfit:
    """``error`` as the `Unfit` that it amounts to."""
    if isinstance(error, Unfit):
        return error
    if isinstance(error, RecursionError):
        return Unfit("it is nested too deeply, or contains itself")
    if isinstance(error, KeyError):
        return Unfit(f"{error} is missing")
    return Unfit(error_summary(error))

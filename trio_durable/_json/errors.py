"""Errors of the codec, before they name an object."""

from __future__ import annotations


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


def shown(value: object) -> str:
    """A value as a message shows it: at most 60 characters of its repr."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def expected(what: str, value: object) -> Unfit:
    """The error of a ``value`` that isn't ``what`` its field declares."""
    return Unfit(f"{shown(value)} is of type {type(value).__name__}, not {what}")

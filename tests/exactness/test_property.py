"""Drawn definitions, pairs of releases and defaults: exact, or refused by name."""

from __future__ import annotations

from hypothesis import given, reject

from .journey import Definition
from .profile import examples
from .property import (
    Impure,
    check_definition,
    check_impure,
    check_release,
    drawn_definitions,
    impure_defaults,
    search,
)
from .raw import Uncopyable
from .releases import Release, releases


@examples(100)
@given(drawn_definitions())
def test_values_of_drawn_definitions_are_exact_or_refused(definition: Definition) -> None:
    try:
        check_definition(definition)
    except Uncopyable:
        reject()


@examples(100)
@given(releases())
def test_the_next_release_reads_exactly_or_refuses(release: Release) -> None:
    try:
        check_release(release)
    except Uncopyable:
        reject()


@examples(20)
@given(impure_defaults)
def test_an_object_keeps_the_default_that_its_first_turn_saw(impure: Impure) -> None:
    check_impure(impure)


def test_the_search_reaches_every_step() -> None:
    found = search(["definitions", "releases"], 60)
    assert found.results["exact"] > 0
    assert found.results["refused at definition"] > 0

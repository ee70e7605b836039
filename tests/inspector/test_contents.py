"""States as they are displayed, compared, merged and redacted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_durable import ObjectKey
from trio_durable.inspector import Access, Content
from trio_durable.inspector._contents import (
    WITHHELD,
    RedactedEdit,
    Redactor,
    changes,
    merged,
    pretty,
    unredacted,
)
from trio_durable.inspector._visible import escaped_json, visible, visible_lines

KEY = ObjectKey("Account", "a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ("ada\u202egnp.exe", "ada⟨U+202E⟩gnp.exe"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\nb\tc\x1b[2J", "a⟨U+000A⟩b⟨U+0009⟩c⟨U+001B⟩[2J"),
        ("a\u00a0b\u2028c", "a⟨U+00A0⟩b⟨U+2028⟩c"),
        ("grüße 日本 👋", "grüße 日本 👋"),
        ("\U000e0041", "⟨U+E0041⟩"),
    ],
)
def test_invisible_characters_are_made_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_lines_of_a_long_text_stay() -> None:
    assert visible_lines("a\n\tb\r") == "a\n\tb⟨U+000D⟩"


@pytest.mark.parametrize("value", ["a\u202eb", "\U000e0041", {"\u200b": ["\u2028"]}, "é👋", "\x1b"])
def test_escaped_json_is_the_same_json(value: Any) -> None:
    text = pretty(value)
    assert json.loads(text) == value
    assert visible_lines(text) == text
    assert escaped_json(text) == text


def test_what_fits_is_on_one_line() -> None:
    state = {"few": [1, 2], "many": ["a long word"] * 8, "none": []}
    words = ",\n".join(['    "a long word"'] * 8)
    assert pretty(state) == (f'{{\n  "few": [1, 2],\n  "many": [\n{words}\n  ],\n  "none": []\n}}')


def test_changes_are_named_by_their_paths() -> None:
    before = {"a": 1, "b": [1, {"c": True}], "gone": None}
    after = {"a": 1.0, "b": [1, {"c": 1}, "new"]}
    assert [(each.path, each.before, each.after) for each in changes(before, after)] == [
        ("a", "1", "1.0"),
        ("b[1].c", "true", "1"),
        ("b[2]", None, '"new"'),
        ("gone", "null", None),
    ]


def test_changes_of_a_large_state_are_cut_off() -> None:
    found = changes(list(range(1000)), list(range(1000, 2000)))
    assert (len(found), found[-1].path) == (201, "…")


def test_two_edits_of_different_members_are_both_kept() -> None:
    base = {"a": 1, "b": 1, "c": 1}
    merge = merged(base, {"a": 2, "b": 1, "d": 1}, {"a": 1, "b": 2, "c": 1})
    assert merge is not None
    assert (merge.value, merge.both) == ({"a": 2, "d": 1, "b": 2}, [])


def test_of_two_edits_of_a_member_it_is_said_that_both_have_changed_it() -> None:
    merge = merged({"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 2})
    assert merge is not None
    assert (merge.value, merge.both) == ({"a": 3, "b": 2}, ["a"])


# --- redaction -----------------------------------------------------------------------------------

STORED = {"name": "ada", "card": "4111", "cards": [{"number": "1"}, {"number": "2"}]}
SHOWN = {"name": "ada", "card": "…", "cards": [{"number": "…"}, {"number": "…"}]}


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        (SHOWN, STORED),
        ({**SHOWN, "name": "eve"}, {**STORED, "name": "eve"}),
        ({**SHOWN, "card": "5"}, {**STORED, "card": "5"}),
        (
            {**SHOWN, "cards": [{"number": "…"}, {"number": "3"}]},
            {**STORED, "cards": [{"number": "1"}, {"number": "3"}]},
        ),
        ({**SHOWN, "more": 1}, {**STORED, "more": 1}),
        (
            {name: SHOWN[name] for name in ("name", "cards")},
            {n: STORED[n] for n in ("name", "cards")},
        ),
    ],
)
def test_an_edit_keeps_what_was_redacted(edited: Any, expected: Any) -> None:
    assert unredacted(STORED, SHOWN, edited) == expected


@pytest.mark.parametrize("edited", [{**SHOWN, "cards": [{"number": "…"}]}, {**SHOWN, "cards": 1}])
def test_an_edit_that_leaves_open_which_value_is_meant_is_refused(edited: Any) -> None:
    with pytest.raises(RedactedEdit, match="cards"):
        unredacted(STORED, SHOWN, edited)


def test_a_member_that_was_left_out_stays_stored() -> None:
    assert unredacted({"a": 1, "b": 2}, {"a": 1}, {"a": 3}) == {"a": 3, "b": 2}


def test_a_member_that_redaction_has_added_is_not_stored() -> None:
    assert unredacted({"a": 1}, {"a": 1, "note": "…"}, {"a": 2, "note": "…"}) == {"a": 2}


@pytest.mark.parametrize("returned", [object(), {1, 2}, b"bytes"])
def test_nothing_is_shown_if_redaction_returns_no_json(returned: object) -> None:
    assert Redactor(lambda _: returned).shown(KEY, "state", {"a": 1}) == WITHHELD


def test_nothing_is_shown_if_redaction_fails(caplog: pytest.LogCaptureFixture) -> None:
    def redact(content: Content) -> object:
        raise KeyError(content.kind)

    assert Redactor(redact).error(KEY, "ValueError: secret") == WITHHELD
    assert "redact failed for the error of Account('a')" in caplog.text


def test_redaction_gets_a_copy() -> None:
    def redact(content: Content) -> object:
        content.value.clear()
        return content.value

    state = {"a": 1}
    assert Redactor(redact).shown(KEY, "state", state) == {}
    assert state == {"a": 1}


# --- access --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"can": {"read"}}, "'read' is no right"),
        ({"can": "list"}, "must be a set of rights"),
        ({"can": {"list"}, "tenants": "acme"}, "must be a set of names"),
        ({"can": {"list"}, "tenants": ["A B"]}, "can't be the name of a tenant"),
    ],
)
def test_an_access_is_checked(options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Access("ada", **options)


def test_an_access_is_for_objects_without_a_tenant_unless_it_names_some() -> None:
    access = Access("ada", can={"list"})
    assert access.sees("")
    assert not access.sees("acme")
    assert Access("ada", can=(), tenants=None).sees("acme")


def test_each_right_needs_the_right_to_list() -> None:
    assert not Access("ada", can={"edit", "state"}).may("edit")

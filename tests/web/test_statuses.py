"""Statuses of errors: each class has one, as the page says, and no text of an error is sent."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from cli.support import ROOT
from test_errors import SAMPLES, classes, sample

from trio_durable import (
    CallTimeout,
    DurableError,
    MailboxFull,
    ObjectKey,
    OwnerLost,
    PersistenceError,
    StaleObject,
)
from trio_durable.web import ErrorStatus, http_status

KEY = ObjectKey("Cart", "ada")
PAGE = ROOT / "docs" / "howto" / "http-errors.md"
BEGAN = CallTimeout(KEY, "add", 5, "running")
QUEUED = CallTimeout(KEY, "add", 5, "queued", False)
LOAD = PersistenceError(KEY, "load", "the disk is gone")
SAVE = PersistenceError(KEY, "save", "the disk is full")

every_class = pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)


def rows() -> dict[str, tuple[int, bool, bool]]:
    """The page's table by the first column's code: status, retryable, may have run."""
    cells = re.findall(
        r"^\| (.+?) \| (\d+) \| (yes|no) \| (yes|no)\b.* \|$", PAGE.read_text(), re.MULTILINE
    )
    found: dict[str, tuple[int, bool, bool]] = {}
    for errors, status, retryable, ran in cells:
        names = ["others"] if errors.startswith("all others") else re.findall(r"`(.+?)`", errors)
        if " with `" in errors:
            names = [" ".join(names)]
        found |= dict.fromkeys(names, (int(status), retryable == "yes", ran == "yes"))
    return found


def row_of(answer: ErrorStatus) -> tuple[int, bool, bool]:
    return answer.status, answer.retryable, answer.may_have_run


def sample_of_save(cls: type[DurableError]) -> DurableError:
    error = sample(cls)
    if isinstance(error, PersistenceError):
        error.action = "save"
    return error


@every_class
def test_the_page_has_the_status_of_each_class(cls: type[DurableError]) -> None:
    table = rows()
    answer = row_of(http_status(sample_of_save(cls)))
    named = next((table[base.__name__] for base in cls.__mro__ if base.__name__ in table), None)
    if named is not None:
        assert answer == named
    elif answer[0] == 503:
        assert answer == table["StorageUnavailable"]  # of the storage's, as their base
        assert cls.__name__ == "StorageError"
    else:
        assert answer[:2] == table["others"][:2]


def test_the_page_names_the_errors_with_two_statuses() -> None:
    table = rows()
    assert row_of(http_status(BEGAN)) == table["CallTimeout"]
    assert row_of(http_status(QUEUED)) == table["CallTimeout may_have_run=False"]
    assert row_of(http_status(SAVE)) == table["PersistenceError"]
    assert row_of(http_status(LOAD)) == table['PersistenceError action="load"']
    assert len({table["CallTimeout"], table["CallTimeout may_have_run=False"]}) == 2


def test_the_page_names_no_other_error() -> None:
    names = {name.partition(" ")[0] for name in rows()} - {"others"}
    assert names <= {cls.__name__ for cls in classes()}
    assert len(names) > 10


@every_class
def test_the_text_has_no_value_of_the_error(cls: type[DurableError]) -> None:
    text = http_status(sample(cls)).text
    for value in SAMPLES.values():
        if isinstance(value, str) and value not in ("add", "load"):
            assert value not in text


@every_class
def test_a_retryable_answer_says_when(cls: type[DurableError]) -> None:
    answer = http_status(sample(cls))
    assert answer.headers == ({"Retry-After": "1"} if answer.retryable else {})
    assert (answer.retry_after is not None) is answer.retryable
    assert answer.retryable == (answer.status in (503, 504))


def test_a_mailbox_that_was_full_is_no_timeout_of_a_turn() -> None:
    assert http_status(MailboxFull(KEY, "add", 5, "queued", 16)) == http_status(QUEUED)


def test_an_error_whose_outcome_is_unknown_says_so() -> None:
    for error in (BEGAN, SAVE, StaleObject(KEY, "save", "stale", 7), OwnerLost(KEY, "add")):
        answer = http_status(error)
        assert answer.may_have_run
        assert "may" in answer.text


def test_errors_of_others_are_faults_of_the_server() -> None:
    assert row_of(http_status(ValueError("a secret"))) == (500, False, True)
    assert "secret" not in http_status(ValueError("a secret")).text


def test_the_module_imports_no_framework() -> None:
    program = "import trio_durable.web, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert "trio_durable" in found
    assert not found & {"starlette", "fastapi", "litestar", "quart", "uvicorn", "hypercorn"}

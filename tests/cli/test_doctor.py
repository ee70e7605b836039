"""A storage is checked, and the answer is for people or for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_durable import DurableObject, ObjectKey
from trio_durable._clock import SystemClock
from trio_durable.cli.storage import message_findings
from trio_durable.cli.storage.restore import Mail, restore_mail
from trio_durable.storage import Finding, ForwardingStorage, MemoryStorage

from .stored_data import DAY, NOW, json_of, save, writer_of
from .support import assert_refused, run
from .test_messages import BOB, a_message, some_mail

FINE = Finding("pulse", "ok", "it beats")
RISK = Finding("weight", "warning", "it gains\x1b[2J [red]", "eat less")
ILL = Finding("leg", "problem", "it is broken", "set it")


class Patient(ForwardingStorage):
    keeps_messages = False

    def __init__(self, *findings: Finding) -> None:
        super().__init__(MemoryStorage())
        self.findings = findings
        self.thorough: list[bool] = []

    @property
    def location(self) -> str:
        return "other://app"

    def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
        self.thorough.append(thorough)
        yield from self.findings


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    """The storage that each path stands for."""
    storage = Patient(FINE, RISK, ILL)
    module = sys.modules["trio_durable.cli.commands.doctor"]
    monkeypatch.setattr(module, "resolve_storage", lambda name, **_: storage)
    return storage


def test_findings_are_printed_with_advice(patient: Patient) -> None:
    result = run("doctor", "app.db")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        "ok       pulse: it beats",
        "warning  weight: it gains\\x1b[2J [red]",
        "         eat less",
        "problem  leg: it is broken",
        "         set it",
        "other://app: 3 checks, 1 warning, 1 problem.",
    ]


def test_findings_in_json(patient: Patient) -> None:
    result = run("doctor", "-s", "app.db", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    shown = json.loads(result.stdout)
    assert shown["location"] == "other://app"
    assert [Finding(**each) for each in shown["findings"]] == [FINE, RISK, ILL]


def test_a_warning_is_no_problem(patient: Patient) -> None:
    patient.findings = (FINE, RISK)
    assert run("doctor", "app.db").exit_code == 0


def test_the_checks_of_all_rows_are_asked_for(patient: Patient) -> None:
    run("doctor", "app.db")
    run("doctor", "app.db", "--thorough")
    assert patient.thorough == [False, True]


def test_a_finding_is_printed_before_the_next_check_ends(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Patient):
        def diagnose(self, thorough: bool = False) -> Iterator[Finding]:
            yield FINE
            raise KeyboardInterrupt

    module = sys.modules["trio_durable.cli.commands.doctor"]
    monkeypatch.setattr(module, "resolve_storage", lambda name, **_: Interrupted())
    result = run("doctor", "app.db")
    assert (result.exit_code, result.stdout) == (130, "ok       pulse: it beats\n")


def test_the_storage_is_an_argument_an_option_or_a_variable(db: Path) -> None:
    location = str(db.resolve())
    for args, env in [
        (("doctor", "app.db"), {}),
        (("doctor", "-s", "app.db"), {}),
        (("doctor",), {"TRIO_DURABLE_STORAGE": "app.db"}),
        (("doctor", "app.db"), {"TRIO_DURABLE_STORAGE": "missing.db"}),
    ]:
        assert json.loads(run(*args, "--json", env=env).stdout)["location"] == location


def test_the_storage_is_given_once(folder: Path) -> None:
    says = "STORAGE is given twice; leave out --storage"
    assert_refused(folder, says, "doctor", "a.db", "-s", "b.db")
    assert_refused(folder, "Missing option '--storage'", "doctor")
    assert_refused(folder, "STORAGE: no storage is known for ftp://", "doctor", "ftp://a")
    assert_refused(folder, "--storage: no storage is known for ftp://", "doctor", "-s", "ftp://a")


def test_a_storage_is_checked_by_opening_it_unless_it_has_checks_of_its_own(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patient, "diagnose", ForwardingStorage.diagnose)
    assert json_of("doctor", "app.db", "--json")["findings"] == [
        {
            "name": "opening",
            "status": "ok",
            "text": "a reader can be opened, and no migrations are pending",
            "advice": "",
        }
    ]


# --- messages ------------------------------------------------------------------------------------


def types_found(path: Path, *options: str) -> Finding:
    findings = json_of("doctor", str(path), "--json", *options)["findings"]
    return next(Finding(**each) for each in findings if each["name"] == "types")


def test_messages_and_alarms_for_types_that_nothing_knows_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with writer_of(path) as writer:
        save(writer, ObjectKey("cli.Kept", "k"), {}, {"ring": (NOW + DAY, None)})
        save(writer, ObjectKey("Gone", "g"), None, {"ring": (NOW + DAY, None)})
        assert types_found(path).text == "no object has the type of these: 1 alarm for Gone"
        restore_mail(writer, some_mail(), NOW)  # to an Account that isn't stored
    found = types_found(path)
    assert found.status == "warning"
    assert found.text.endswith("these: 5 messages for Account; 1 alarm for Gone")
    with writer_of(path) as writer:
        save(writer, BOB, {})
        save(writer, ObjectKey("Gone", "g"), {})
    assert types_found(path).status == "ok"
    found = types_found(path, "--app", f"{__name__}:Kept")
    assert found.status == "warning"
    assert found.text.startswith("the app has no class for these: 5 messages for Account; 1 alarm")


class Kept(DurableObject, name="cli.Kept"):
    pass


def test_dead_and_old_messages_and_marks_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with writer_of(path) as writer:
        save(writer, BOB, {"cents": 0})
        restore_mail(writer, some_mail(), NOW)
    said = run("doctor", str(path)).stdout
    assert "there are dead letters: 1 to Account" in said
    assert "these wait for long: 4 messages to Account, one sent" in said
    with writer_of(path) as writer:
        writer.mark_moved("elsewhere", NOW, "")
    assert "the storage was moved to elsewhere on" in run("doctor", str(path)).stdout


def test_messages_that_wait_for_their_time_are_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    later = SystemClock().now() + DAY
    with writer_of(path) as writer:
        restore_mail(writer, Mail([a_message(1, wake_at=later)]), NOW)
    assert "messages: none is dead, and none has waited for long" in run("doctor", str(path)).stdout


def test_once_keys_that_pile_up_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mail.db"
    monkeypatch.setattr(message_findings, "_MANY_KEYS", 1)
    with writer_of(path) as writer:
        restore_mail(writer, Mail([], [], some_mail().once), NOW)
    assert "1 once-keys or more have expired" in run("doctor", str(path)).stdout

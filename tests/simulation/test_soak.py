"""`make soak`, for a moment."""

from __future__ import annotations

import pytest

from . import soak
from .mutants import MUTANTS
from .run import Undecided


def test_it_says_what_it_has_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--seed", "5", "--count", "2"]) == 0
    first, figures, verdict = capsys.readouterr().out.splitlines()
    assert first == "seeds from 5 on"
    assert "2 seeds" in figures
    assert "20 histories checked" in figures
    assert verdict == "nothing was wrong"


def test_it_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--minutes", "0"]) == 0
    assert "1 seeds" in capsys.readouterr().out


def test_it_kills_at_the_beginning_if_it_should(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "KILLS", ("tests/alarms/test_retry.py",))
    assert soak.main(["--count", "2", "--kills"]) == 0
    assert "rounds of SIGKILL: 1" in capsys.readouterr().out


def test_kills_that_show_something_wrong_end_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "KILLS", ("tests/nothing.py",))
    assert soak.main(["--count", "2", "--kills"]) == 1
    output = capsys.readouterr().out
    assert "file or directory not found: tests/nothing.py" in output
    assert "TRIO_DURABLE_KILLS=20 python -m pytest tests/nothing.py" in output


def test_control_c_ends_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seed: int, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(soak, "simulate", interrupted)
    assert soak.main([]) == 0
    assert "stopped" in capsys.readouterr().out


def test_what_nobody_can_judge_is_counted_and_not_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def undecided(seed: int, **options: object) -> None:
        raise Undecided

    monkeypatch.setattr(soak, "simulate", undecided)
    assert soak.main(["--count", "2"]) == 0
    assert "2 seeds too hard to judge" in capsys.readouterr().out


@pytest.mark.parametrize("where", [[], ["--backend", "asyncio"]], ids=["trio", "asyncio"])
def test_what_is_wrong_is_told_with_the_command_that_shows_it(
    where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with MUTANTS["reply_before_commit"]():
        assert soak.main(["--seed", "0", *where]) == 1
        output = capsys.readouterr().out
        [command] = [text.strip() for text in output.splitlines() if soak.REPLAY in text]
        violation = output.split("\n\n")[0].splitlines()[2:]
        assert command.endswith(" ".join(where))
        # It is what it says it is.
        assert soak.main(command.removeprefix(soak.REPLAY).split()) == 1
        assert "\n".join(violation) in capsys.readouterr().out

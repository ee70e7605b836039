"""`make chaos`, for some seconds, and what its judge sees."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from . import chaos
from .chaos_history import History, judge
from .chaos_storage import STORAGES, Contents, Failover
from .processes import run_module

SECONDS = 4


@pytest.mark.parametrize("storage", STORAGES)
def test_it_says_what_it_has_done(storage: str) -> None:
    arguments = ("--storage", storage, "--seconds", f"{SECONDS}", "--seed", "5")
    lines = run_module("cluster.chaos", *arguments).splitlines()
    assert lines[0] == "seeds from 5 on"
    assert lines[-1] == "nothing was wrong", "\n".join(lines)
    assert " changes" in lines[-2]
    assert "histories" in lines[-2]
    assert ("1 promote_standby" in lines[-2]) is (storage in ("standby", "lossy"))
    assert (re.search(r"\b[1-9]\d* lost\b", lines[-2]) is not None) is (storage == "lossy")


# --- what it would see -------------------------------------------------------------------------


def verdict(
    folder: Path,
    names: list[str],
    *lines: list[Any],
    calm_until: float = 0.0,
    failover: Failover | None = None,
) -> int:
    """Judge the history of a list; return how many of its changes a failover has lost."""
    (folder / "0.calls").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = History.of([folder / "0.calls"])
    history.read(contents(names), failover)
    return judge(history, (0.0, calm_until))["lost"]


def contents(names: list[str], *alarms: str) -> Contents:
    stored = ("ChaosLedger", "a", json.dumps({"names": names}))
    return Contents([stored], frozenset(alarms))


APPEND = [[0, "ledger a", "append", ["x"], 1.0], [0, "ok", [1, []], 2.0]]


def test_it_accepts_what_is_right(tmp_path: Path) -> None:
    verdict(
        tmp_path,
        ["x", "z"],
        *APPEND,
        [1, "ledger a", "append", ["y"], 3.0],
        [1, "unknown", "OwnerLost", 4.0],
        [2, "ledger a", "peek", [], 5.0],
        [2, "ok", [1, ["x"]], 6.0],
        [3, "ledger a", "append", ["z"], 7.0],  # its caller was killed
        [4, "ledger a", "read", [], 8.0],
        [4, "unknown", "CallTimeout: its commit isn't durable yet", 11.0],
    )


WRONG: dict[str, tuple[list[str], list[list[Any]]]] = {
    "lost": ([], []),
    "twice": (["x", "x"], []),
    "another order": (["y", "x"], [[1, "ledger a", "append", ["y"], 3.0]]),
    "a stale read": (["x"], [[1, "ledger a", "read", [], 3.0], [1, "ok", [], 4.0]]),
    "a stale exception": (["x"], [[1, "ledger a", "peek", [], 3.0], [1, "ok", [0, []], 4.0]]),
    "a lost alarm": (["x"], [[1, "ledger a", "arm", ["y"], 3.0], [1, "ok", None, 4.0]]),
    "a call that times out": (
        ["x"],
        [[1, "ledger a", "read", [], 3.0], [1, "unknown", "CallTimeout: it is idle", 4.0]],
    ),
    "an unknown error": (["x"], [["fault", "ValueError()"]]),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_sees_what_is_wrong(tmp_path: Path, name: str) -> None:
    names, lines = WRONG[name]
    with pytest.raises(AssertionError):
        verdict(tmp_path, names, *APPEND, *lines, calm_until=4.0)


# --- what it would see after a failover that loses commits ---------------------------------------

LOST = [[1, "ledger a", "append", ["y"], 3.0], [1, "ok", [2, ["x"]], 4.0]]
FAILOVER = Failover(5.0, 6.0, 7.0, contents(["x"], "z"))


def test_it_accepts_what_a_failover_loses(tmp_path: Path) -> None:
    lost = verdict(
        tmp_path,
        ["x", "w", "z"],
        *APPEND,
        *LOST,
        [2, "ledger a", "append", ["z"], 3.0],
        [3, "ledger a", "arm", ["z"], 3.0],  # the alarm goes off on both servers
        [3, "ok", None, 4.0],
        [4, "ledger a", "read", [], 6.1],  # under the old lease
        [4, "ok", ["x", "y", "z"], 6.2],
        [5, "ledger a", "arm", ["v"], 4.5],
        [5, "ok", None, 4.9],
        [6, "ledger a", "append", ["w"], 6.3],
        [6, "ok", [2, ["x"]], 6.4],
        failover=FAILOVER,
    )
    assert lost == 1


WRONG_AFTER_A_FAILOVER: dict[str, tuple[list[str], list[list[Any]]]] = {
    "a lost change is back": (["x", "y", "z"], []),
    "what was kept is gone": (["z"], []),
    "a read of what is lost": (
        ["x", "z"],
        [[2, "ledger a", "read", [], 7.1], [2, "ok", ["x", "y"], 7.2]],
    ),
    "a read of what is lost, after a reply of the new server": (
        ["x", "w", "z"],
        [
            [2, "ledger a", "append", ["w"], 6.1],
            [2, "ok", [2, ["x"]], 6.2],
            [3, "ledger a", "read", [], 6.3],
            [3, "ok", ["x", "y"], 6.4],
        ],
    ),
    "a change of what is lost": (
        ["x", "w", "z"],
        [[2, "ledger a", "append", ["w"], 6.1], [2, "ok", [3, ["y"]], 6.2]],
    ),
    "a lost alarm of the new server": (
        ["x", "z"],
        [[2, "ledger a", "arm", ["w"], 6.1], [2, "ok", None, 6.2]],
    ),
    "a lost alarm that was kept": (
        ["x"],
        [[2, "ledger a", "arm", ["z"], 3.0], [2, "ok", None, 4.0]],
    ),
}


@pytest.mark.parametrize("name", WRONG_AFTER_A_FAILOVER)
def test_it_sees_what_is_wrong_after_a_failover(tmp_path: Path, name: str) -> None:
    names, lines = WRONG_AFTER_A_FAILOVER[name]
    alarm = [[9, "ledger a", "append", ["z"], 3.0]]
    with pytest.raises(AssertionError):
        verdict(tmp_path, names, *APPEND, *LOST, *alarm, *lines, failover=FAILOVER)


def test_a_failure_names_its_seed_and_keeps_its_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("a change was lost")

    monkeypatch.setattr(chaos, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(chaos.Round, "run", fails)
    assert chaos.main(["--seconds", "1", "--seed", "7"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "a change was lost",
        f"seed 7; the files are in {tmp_path}",
    ]
    assert tmp_path.exists()


def test_rounds_in_which_nothing_was_acknowledged_show_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "run_round", lambda *_: None)
    assert chaos.main(["--minutes", "0", "--seed", "7"]) == 1
    assert "no change was acknowledged" in capsys.readouterr().out

"""Long commands have a progress bar on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import run
from .test_writing import APP

BARS: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "copy": (("copy", "app.db", "new.db"), ["copying", "comparing"]),
    "export": (("export", "-s", "app.db", "new.jsonl"), ["exporting"]),
    "import": (("import", "-s", "new.db", "app.jsonl"), ["importing"]),
    "migrate-states": (("migrate-states", "-s", "app.db", "--app", APP), ["upgrading"]),
    "bench": (("bench", "--seconds", "0.005"), ["measuring"]),
}
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}


@pytest.mark.parametrize(("args", "shown"), BARS.values(), ids=BARS)
def test_a_bar_is_shown_on_a_terminal_and_not_in_a_pipe(
    db: Path, args: tuple[str, ...], shown: list[str]
) -> None:
    run("export", "-s", "app.db", "app.jsonl")
    piped = run(*args)
    assert piped.exit_code == 0
    assert not any(what in piped.stderr for what in shown)
    for path in ("new.db", "new.jsonl"):
        Path(path).unlink(missing_ok=True)
    result = run(*args, env=TERMINAL)
    assert result.exit_code == 0
    assert all(what in result.stderr for what in shown)
    assert result.stderr.count("100 %") >= 1
    # The bar is erased at the end, and the next output starts on its line.
    assert "\x1b[2K" in result.stderr
    assert not any(what in result.stdout for what in shown)

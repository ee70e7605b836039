"""One scenario in a process of its own: ``python -m benchmarks.child NAME FOLDER EFFORT``.

Prints one line of JSON, a `Measurement`. The parent side is `measure_in_child`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import orjson
from cattrs.preconf.orjson import make_converter

from .measurements import Measurement, Outcome, Unmeasured
from .scenario import Effort, Scenario
from .scenarios import scenario_named

_TIMEOUT = 600
_converter = make_converter()


def measure_in_child(scenario: Scenario, folder: Path, effort: Effort) -> Outcome:
    """Measure ``scenario`` in a fresh interpreter, with fresh files in a folder in ``folder``."""
    with tempfile.TemporaryDirectory(prefix=f"{scenario.name}-", dir=folder) as own_folder:
        plan = orjson.dumps(attrs.asdict(effort)).decode()
        try:
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, scenario.name, own_folder, plan],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _unmeasured(scenario, f"it took longer than {_TIMEOUT} s", failed=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}")[-2000:]
        return _unmeasured(scenario, reason, failed=True)
    return _converter.loads(done.stdout, Measurement)


def skipped(scenario: Scenario, reason: str) -> Unmeasured:
    """The outcome of a scenario that can't be measured here."""
    return _unmeasured(scenario, reason, failed=False)


def _unmeasured(scenario: Scenario, reason: str, *, failed: bool) -> Unmeasured:
    return Unmeasured(scenario.name, scenario.group, scenario.title, reason, failed)


def main() -> None:
    """Measure what the command line names."""
    name, folder, plan = sys.argv[1:]
    effort = _converter.loads(plan, Effort)
    measurement = scenario_named(name).measure(Path(folder), effort)
    print(_converter.dumps(measurement).decode())


if __name__ == "__main__":
    main()

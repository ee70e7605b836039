"""The picture of the demo in the README: ``PYTHONPATH=tests python -m support.demo_picture``.

It runs the demo, and draws its screen for light and for dark pages.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[2]
COLUMNS = 84

_ANSI = [(0, 0, 0), (207, 34, 46), (26, 127, 55), (154, 103, 0), (9, 105, 218), (130, 80, 223)]
_DARK = [(0, 0, 0), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255)]
THEMES = {
    "light": TerminalTheme(
        (246, 248, 250), (31, 35, 40), [*_ANSI, (27, 124, 131), (110, 119, 129)]
    ),
    "dark": TerminalTheme((13, 17, 23), (230, 237, 243), [*_DARK, (57, 197, 207), (110, 118, 129)]),
}


def without_progress(output: str) -> str:
    """The final screen: colours need a terminal, which gets a progress bar as well."""
    output = re.sub(r"\n\x1b\[1A|\x1b\[(?:\?25[lh]|2K|1A)|\r", "", output)
    bar = re.compile(r".*━.*\d:\d\d:\d\d(?:\x1b\[0m)?\s*")
    kept = [bar.sub("", line) for line in output.split("\n") if not bar.fullmatch(line)]
    return "\n".join(kept)


def draw(screen: str, theme: TerminalTheme) -> str:
    """The screen as SVG, in the reader's own monospaced font."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), color_system="truecolor")
    console.print(Text.from_ansi(screen), soft_wrap=True)
    svg = console.export_svg(title="make demo", theme=theme, unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\n*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n*", "", svg)
    lines = (line.strip() for line in svg.splitlines())
    return "\n".join(filter(None, lines)).replace("Fira Code", "ui-monospace") + "\n"


def main() -> None:
    """Run the demo, and write both pictures."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_durable", "demo"],
        cwd=ROOT,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)},
        capture_output=True,
        text=True,
        check=True,
    )
    screen = f"$ make demo\n{without_progress(done.stdout).rstrip()}"
    for name, theme in THEMES.items():
        (ROOT / "docs" / f"demo-{name}.svg").write_text(draw(screen, theme), encoding="utf-8")


if __name__ == "__main__":
    main()

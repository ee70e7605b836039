"""How Sphinx makes a site of these pages: ``make docs``. It asks nothing of the network."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "trio_durable"
author = "The trio_durable authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"trio_durable {release}"

nitpicky = True
suppress_warnings = [
    # What a command prints is no code of any language.
    "misc.highlighting_failure",
]

# Links to headings work as they do on GitHub.
myst_heading_anchors = 4

napoleon_numpy_docstring = False

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!\w+\.md|explanation|howto|coming-from)[^)]*\)")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", unlink)


def unlink(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Links to what is in the repository, but not on the site, become plain text."""
    source[0] = OUTSIDE.sub(r"\1", source[0])

"""The README of the package: links to files of the repository become plain text.

A package page shows the README alone, so a relative link or picture would lead nowhere there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"<picture>.*?</picture>\n*", re.DOTALL)
RELATIVE = re.compile(r"\[((?:[^\[\]]|`[^`]*`)+)\]\((?!https?://|#)[^)]*\)")


def package_readme(text: str) -> str:
    """The README without relative links and pictures."""
    return RELATIVE.sub(r"\1", PICTURE.sub("", text))


class CustomMetadataHook(MetadataHookInterface):
    """Called by hatchling."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README of the package."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": package_readme(text)}

"""Creation of files: all of them or none, and never over an existing one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import CommandError


def create_files(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Create files and their folders. Everything is checked before the first is written.

    Args:
        folder: The folder that the paths are relative to; created if missing.
        contents: The text of each file, by its relative path.

    Returns:
        The paths of the files.

    Raises:
        CommandError: A file exists, or a file is in the place of a folder.
        OSError: The system refused. Files and folders created so far were removed.
    """
    texts = {folder / relative: text for relative, text in contents.items()}
    existing = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if existing:
        raise CommandError(
            f"{', '.join(existing)}: already there; move it away, or choose another name or folder"
        )
    for path in texts:
        for parent in path.parents:
            if (parent.exists() or parent.is_symlink()) and not parent.is_dir():
                raise CommandError(f"{parent}: not a folder; move it away, or choose another one")
    created: list[Path] = []
    try:
        for path, text in texts.items():
            for missing in reversed([parent for parent in path.parents if not parent.exists()]):
                missing.mkdir()
                created.append(missing)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                created.append(path)
                file.write(text)
    except BaseException:
        for path in reversed(created):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        raise
    return list(texts)

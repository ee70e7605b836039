"""New files, all of them or none, and none in the place of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import CommandError


def create_files(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Create files, and the folders that they are in; all is checked before anything is written.

    Args:
        folder: What the paths are relative to. Made if need be.
        contents: From relative path to text.

    Returns:
        The paths of the files.

    Raises:
        Refusal: One of them is there already, or its folder can't be a folder.
        OSError: The system refused. What had been made by then was removed again.
    """
    paths = {folder / relative: text for relative, text in contents.items()}
    taken = [path for path in paths if path.exists() or path.is_symlink()]
    if taken:
        names = ", ".join(str(path) for path in taken)
        raise CommandError(
            f"{names}: there already; move it away, or choose another name or folder"
        )
    for path in paths:
        for parent in path.parents:
            if (parent.exists() or parent.is_symlink()) and not parent.is_dir():
                raise CommandError(f"{parent}: not a folder; move it away, or choose another one")
    made: list[Path] = []
    try:
        for path, text in paths.items():
            for missing in reversed([parent for parent in path.parents if not parent.exists()]):
                missing.mkdir()
                made.append(missing)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                made.append(path)
                file.write(text)
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        raise
    return list(paths)

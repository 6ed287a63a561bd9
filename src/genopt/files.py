"""Files that are there whole or not at all, whenever the process that writes them is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write a file beside its place and move it there in one step at the end.

    A kill leaves the old file, or none; so does an error, which removes what was written.

    Args:
        path: where the file is to be.

    Yields:
        Where to write: the same folder, a name that starts with a dot, the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file in one step.

    Args:
        path: the file.
        text: what it says.
    """
    with whole(path) as part:
        part.write_text(text)

"""Write a file atomically."""

from __future__ import annotations

import os
from pathlib import Path

from edgeshard.files import targets


def ensure_replaceable(path: str, beginning: str) -> None:
    """Refuse a path where something else is than an earlier file that begins like this, or an empty one.

    Raises:
        ConfigurationError: it is a part of a store, a folder, a link, a device, or another file.
        OSError: it cannot be determined.
    """
    targets.ensure_replaceable(path, beginning.encode(), None, "write")


def write_file(path: str, text: str, beginning: str) -> None:
    """Write a file completely or not at all.

    Args:
        path: the file.
        text: its content.
        beginning: how it begins, as each file does that it may replace.

    Raises:
        ConfigurationError: something else is there; see `ensure_replaceable`.
        OSError: it cannot be written.
    """
    ensure_replaceable(path, beginning)
    part = f"{path}.{os.getpid()}.part"
    try:
        Path(part).write_text(text, encoding="utf-8")
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise

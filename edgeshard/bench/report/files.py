"""Write a file atomically."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: str, text: str) -> None:
    """Write a file completely or not at all."""
    part = f"{path}.part"
    try:
        Path(part).write_text(text, encoding="utf-8")
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise

"""Folders that can only be read, as a read-only medium is."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder where it can only be read, as a container or another machine is given it."""
    at.mkdir()
    done = subprocess.run(["mount", "--bind", folder, at], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a folder cannot be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", at], check=True)
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)

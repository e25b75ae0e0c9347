"""Where the project is. Tests start modules of ``tests`` as processes with this as their working directory."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples"
PACKAGE = PROJECT / "edgeshard"

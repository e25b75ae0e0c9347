"""Run the sweep in a separate process, because the calls that it replaces stay replaced."""

from __future__ import annotations

import subprocess
import sys

from tests.support.project import PROJECT


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the sweep with these arguments, to its end."""
    command = [sys.executable, "-m", "tests.campaigns.faults", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=PROJECT)

"""Run the campaign of power cuts in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.project import PROJECT


def campaign(*arguments: object) -> tuple[int, str]:
    """Return the exit code and the output of the command, which replays the same with any hash seed of Python."""
    command = [sys.executable, "-m", "tests.campaigns.powercut", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=PROJECT, env=environment, timeout=280
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout

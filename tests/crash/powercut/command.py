"""Run the campaign of power cuts as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.project import PROJECT


def campaign(*arguments: object) -> tuple[int, str]:
    """The exit code and the output of the command, which replays whatever Python makes of the hashes of texts."""
    command = [sys.executable, "-m", "tests.campaigns.powercut", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=PROJECT, env=environment, timeout=280
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout

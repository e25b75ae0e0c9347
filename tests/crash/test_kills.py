"""Kill real writers and mergers: the short forms of the campaigns `kills` and `kill_parts`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.crash.kills.parts import PARTS
from tests.crash.kills.writers_and_mergers import play
from tests.support.forms import others_slow, short_and_full
from tests.support.project import PROJECT


@pytest.mark.parametrize("rounds", short_and_full(1, 3))
def test_every_acknowledged_row_survives_kills_of_writers_and_mergers(rounds: int) -> None:
    tally = play(rounds=rounds, rows=8_000, seed=20)
    assert tally.writers_killed == rounds
    assert tally.mergers_killed > 0
    assert tally.rows > 20_000 * rounds


@pytest.mark.parametrize("part", others_slow(PARTS, ["locked"]))
def test_every_acknowledged_row_survives_kills_in_each_part_of_the_work(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.kill_parts", "--part", part, "--kills", "12", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=PROJECT,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert re.search(r"kills=([1-9]\d)", done.stdout), done.stdout

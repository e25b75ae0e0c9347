"""The sweep over failing system calls finds what was broken on purpose."""

from __future__ import annotations

import pytest

from tests.crash.syscall_faults.command import sweep

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("mutant", "scenario", "options"),
    [
        ("every failure refuses", "write_durably", "--kind full --every 2"),
        ("a failed commit is passed over", "first_merge", "--kind full --once --every 2"),
        ("half a database is published", "first_merge", "--kind full --once --every 2"),
        ("a full disk is none", "write", "--kind full --every 9"),
    ],
)
def test_the_sweep_finds_what_was_broken_on_purpose(mutant: str, scenario: str, options: str) -> None:
    done = sweep("--mutant", mutant, "--scenario", scenario, *options.split())
    assert 1 == done.returncode, done.stdout + done.stderr
    assert " 0 violations" not in done.stdout.splitlines()[-1]

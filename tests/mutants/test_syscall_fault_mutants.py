"""Break the handling of failing system calls on purpose, and expect the sweep to find it."""

from __future__ import annotations

import pytest

from tests.crash.syscall_faults.command import sweep

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("mutant", "scenario", "options"),
    [
        ("treat every failure as a refusal", "write_durably", "--kind full --every 2"),
        ("ignore a failed commit", "first_merge", "--kind full --once --every 2"),
        ("publish an incomplete database", "first_merge", "--kind full --once --every 2"),
        ("do not recognise a full disk", "write", "--kind full --every 9"),
        ("fail after a commit", "write_within_budget", "--kind full --once --every 5"),
        ("record damage that was found once", "read", "--kind error --once --every 7"),
    ],
)
def test_the_sweep_finds_what_was_broken_on_purpose(mutant: str, scenario: str, options: str) -> None:
    done = sweep("--mutant", mutant, "--scenario", scenario, *options.split())
    assert 1 == done.returncode, done.stdout + done.stderr
    assert " 0 violations" not in done.stdout.splitlines()[-1]

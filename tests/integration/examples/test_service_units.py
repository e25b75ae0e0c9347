"""The units and the crontab of the examples: systemd accepts them, and the commands know what they are told."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeshard import cli
from edgeshard.cli import exits
from tests.support.project import EXAMPLES

WATCHING, ONCE, TIMER = (
    EXAMPLES / "systemd" / name
    for name in ("edgeshard-merge.service", "edgeshard-merge-once.service", "edgeshard-merge-once.timer")
)
PROGRAM = "/srv/app/.venv/bin/edgeshard"
STORE = "/srv/data"


def unit(path: Path) -> configparser.ConfigParser:
    """A unit's sections and keys; one that is there twice is an error."""
    parsed = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    parsed.optionxform = str  # type: ignore[assignment, method-assign]  # as configparser's documentation has it
    parsed.read_string(path.read_text())
    return parsed


def jobs() -> list[re.Match[str]]:
    """The lines of the crontab that are neither comments nor settings."""
    lines = (EXAMPLES / "crontab").read_text().splitlines()
    found = [re.fullmatch(r"((?:[0-9*/]+\s+){5})(\S.*)", line) for line in lines if line and line[0] not in "#M"]
    assert None not in found
    return [job for job in found if job]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, which verifies units, is not installed here")
    for path in (WATCHING, ONCE, TIMER):
        text = path.read_text()
        assert (path == TIMER) == (PROGRAM not in text)
        (tmp_path / path.name).write_text(text.replace(PROGRAM, sys.executable))  # it has to exist
    # what else this machine has is its own affair
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize(
    ("path", "sections"),
    [
        (WATCHING, ["Unit", "Service", "Install"]),
        (ONCE, ["Unit", "Service"]),
        (TIMER, ["Unit", "Timer", "Install"]),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_a_unit_has_its_sections(path: Path, sections: list[str]) -> None:
    assert sections == unit(path).sections()
    assert "" != unit(path)["Unit"]["Description"]


def test_the_watching_service_tells_systemd_and_is_restarted_unless_that_is_of_no_use() -> None:
    service = unit(WATCHING)["Service"]
    assert ["notify", "on-failure"] == [service["Type"], service["Restart"]]
    hopeless = {exits.USAGE, exits.NO_PERMISSION, exits.CONFIGURATION}
    assert hopeless == set(map(int, service["RestartPreventExitStatus"].split()))
    assert service["WatchdogSec"].endswith("min")
    assert "/bin/kill -HUP $MAINPID" == service["ExecReload"]


def test_the_single_merge_fails_for_an_incomplete_one_and_not_for_another_at_work() -> None:
    service = unit(ONCE)["Service"]
    assert ["oneshot", str(exits.TRY_AGAIN)] == [service["Type"], service["SuccessExitStatus"]]


def test_the_timer_starts_the_single_merge_again_and_again() -> None:
    timer = unit(TIMER)
    assert TIMER.with_suffix(".service") == ONCE
    assert {"OnBootSec", "OnUnitInactiveSec", "AccuracySec"} == set(timer["Timer"])
    assert "timers.target" == timer["Install"]["WantedBy"]


@pytest.mark.parametrize("path", [WATCHING, ONCE], ids=lambda path: path.name)
def test_a_service_may_write_its_store_and_nothing_else(path: Path) -> None:
    parsed = unit(path)
    service = parsed["Service"]
    store = shlex.split(service["ExecStart"])[2]
    assert [STORE] * 3 == [store, service["ReadWritePaths"], parsed["Unit"]["RequiresMountsFor"]]
    assert ["strict", "yes", ""] == [
        service[key] for key in ("ProtectSystem", "NoNewPrivileges", "CapabilityBoundingSet")
    ]
    assert "M" == service["MemoryMax"][-1]


def test_both_services_are_confined_alike() -> None:
    watching, once = (list(unit(path)["Service"].items()) for path in (WATCHING, ONCE))
    first = ("ProtectSystem", "strict")
    assert watching[watching.index(first) :] == once[once.index(first) :]


def test_the_crontab_has_lines_that_cron_reads_whole() -> None:
    text = (EXAMPLES / "crontab").read_text()
    assert "\n" == text[-1]  # cron overlooks a last line that does not end
    nightly = [f"10 3 * * {day}" for day in range(7)]
    assert ["*/5 * * * *", *nightly, "40 3 * * *"] == [job[1].strip() for job in jobs()]
    assert 7 == len({job[2] for job in jobs() if "snapshot" in job[2]}), "a week of snapshots is kept"
    assert [] == [job[2] for job in jobs() if "%" in job[2]]  # cron makes a line break of it


@pytest.mark.parametrize("command", [job[2] for job in jobs()])
def test_the_crontabs_commands_are_ones_that_the_parser_knows(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert [PROGRAM, STORE] == [program, cli.parse(arguments).root]


@pytest.mark.parametrize("path", [WATCHING, ONCE], ids=lambda path: path.name)
def test_a_services_command_is_one_that_the_parsers_know(path: Path) -> None:
    program, verb, *arguments = shlex.split(unit(path)["Service"]["ExecStart"])
    assert [PROGRAM, "merge"] == [program, verb]
    assert STORE == cli.parse([verb, *arguments]).root


def test_the_services_make_the_store_before_the_first_agent_writes() -> None:
    assert "--init" in shlex.split(unit(WATCHING)["Service"]["ExecStart"])
    program, verb, *arguments = shlex.split(unit(ONCE)["Service"]["ExecStartPre"])
    assert [PROGRAM, "init", STORE] == [program, verb, cli.parse([verb, *arguments]).root]
    assert f"{PROGRAM} init {STORE}" in (EXAMPLES / "crontab").read_text()

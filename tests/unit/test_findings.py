"""What `edgeshard verify` advises for each of its findings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import attrs
import pytest

from edgeshard import cli
from edgeshard.cli import next_steps
from edgeshard.reports import OLDER_MASTER, OTHER_MASTER, PEER, PRUNED, UNKNOWN, Gap, Loss, VerifyReport

GAP = Gap("pump", "ab", 3, 7)
HUB = "cd" * 16


def report(**found: Any) -> VerifyReport:
    return attrs.evolve(VerifyReport(9, 1, (), ()), **found)


def lost(cause: str, database: str = "", kind: str = "", gap: Gap = GAP) -> Loss:
    return Loss(gap, cause, database, kind)


@pytest.mark.parametrize(
    ("found", "kind", "command"),
    [
        (report(errors=("SQLite finds: page 3",)), "damage", "restore ROOT SNAPSHOT"),
        (report(losses=(lost(PEER, HUB, "edgeshard"),)), PEER, "merge ROOT --from DATABASE"),
        (report(losses=(lost(PEER, HUB, "postgresql"),)), PEER, "accept-loss ROOT --stream ab --seqs 3-7 --why REASON"),
        (report(losses=(lost(OTHER_MASTER, HUB),)), OTHER_MASTER, "merge ROOT --from DATABASE"),
        (report(losses=(lost(PRUNED, HUB),)), PRUNED, "accept-loss ROOT --stream ab --seqs 3-7 --why REASON"),
        (report(losses=(lost(OLDER_MASTER, HUB),)), OLDER_MASTER, "merge ROOT --from ROOT/replaced-master-1.db"),
        (report(losses=(lost(UNKNOWN),)), UNKNOWN, "status ROOT"),
        (report(by_hand=(GAP,)), "deleted-by-hand", "accept-loss ROOT --stream ab --seqs 3-7 --why REASON"),
        (report(unnamed="rows may be missing"), "missing-unnamed", "merge ROOT --from ROOT/replaced-master-1.db"),
    ],
)
def test_each_finding_says_what_to_do_next(tmp_path: Path, found: VerifyReport, kind: str, command: str) -> None:
    (tmp_path / "replaced-master-1.db").touch()
    (finding,) = next_steps.findings(found, tmp_path)
    assert (kind, f"edgeshard {command.replace('ROOT', str(tmp_path))}") == (finding.kind, finding.step.commands[0])
    for line in finding.step.commands:
        program, *words = shlex.split(line)
        assert ("edgeshard", words[0]) == (program, cli.parse(words).verb)


def test_losses_with_the_same_cause_are_one_finding(tmp_path: Path) -> None:
    losses = (lost(UNKNOWN), lost(UNKNOWN, gap=Gap("door", "ef", 1, 1)), lost(PRUNED, HUB))
    unknown, pruned = next_steps.findings(report(losses=losses), tmp_path)
    assert (("6 rows missing: unknown"), f"5 rows missing: master {HUB} pruned them") == (unknown.text, pruned.text)
    assert f"edgeshard accept-loss {tmp_path} --stream ef --seqs 1-1 --why REASON" == unknown.step.commands[-1]


def test_a_sound_master_needs_nothing(tmp_path: Path) -> None:
    assert [] == next_steps.findings(report(), tmp_path)

"""What to do about each problem of a store: the one place that turns problems into commands to paste."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard import units
from edgeshard.errors import printable
from edgeshard.reports import Problem, ProblemKind, StatusReport


@attrs.frozen
class NextStep:
    """What to do about a problem.

    Attributes:
        advice: what to do, in words.
        commands: the commands, in order, quoted for a shell. Words in capitals stand for what the user has to fill in.
    """

    advice: str
    commands: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as a part of a problem in JSON."""
        return {"advice": self.advice, "next": list(self.commands)}


def next_step(problem: Problem, report: StatusReport, root: Path) -> NextStep:
    """Return what to do about a problem of a report on the store in `root`."""
    return _STEPS[problem.kind](problem, report, root)


def status_as_dict(report: StatusReport, root: Path) -> dict[str, Any]:
    """Return a report as a dict for JSON, in which each problem has what to do about it."""
    problems = [problem.as_dict() | next_step(problem, report, root).as_dict() for problem in report.problems]
    return report.as_dict() | {"problems": problems}


def command(verb: str, root: Path, *arguments: str) -> str:
    """Return the command that runs a verb on a store."""
    return " ".join(["edgeshard", verb, *map(quote, (str(root), *arguments))])


def quote(word: str) -> str:
    """Return a word as a shell reads it, with printable characters only."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = printable(word.replace("\\", r"\\").replace("'", r"\'"))
    return f"$'{escaped}'"


# -- each kind of problem ---------------------------------------------------------------------------------------------


def _damaged_master(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = (
        "Stop mergers and readers, and restore your last good SNAPSHOT. Until then rows stay safe in the shards. "
        "Without a snapshot: `edgeshard help operating`, 'A damaged master'."
    )
    return NextStep(advice, (command("restore", root, "SNAPSHOT"),))


def _quarantined(problem: Problem, report: StatusReport, root: Path) -> NextStep:
    path = os.path.join(root, "shards", problem.shard)
    shard = next((shard for shard in report.shards if shard.name == problem.shard), None)
    stop = "stop its agent, " if shard is not None and shard.alive else ""
    if stop and shard is not None and shard.pid is not None:
        stop = f"stop its agent (process {shard.pid}), "
    advice = (
        f"If it is damaged, {stop}rescue what can be read, and move it away. Other reasons: `edgeshard help "
        "troubleshooting`."
    )
    return NextStep(advice, (command("salvage", root, path), move_away(path)))


def move_away(path: str) -> str:
    """Return the command that moves a shard with its WAL out of a store."""
    return f"mv {quote(path)}* /var/tmp/"


def _blocked(problem: Problem, _: StatusReport, root: Path) -> NextStep:
    path = os.path.join(root, "shards", problem.shard)
    other = root.with_name(f"{root.name}-blocked") if root.name else Path("blocked")
    advice = (
        "Correct the class in the agent, and let it write to a table with another name. Rows that are there already "
        "can be merged into a store of their own. `edgeshard help tables` says more."
    )
    return NextStep(advice, (command("merge", other, "--from", path),))


def _missing(problem: Problem, _: StatusReport, root: Path) -> NextStep:
    advice = "See where they are, and merge the database that has them. If none has them, accept that they are lost:"
    agent = (f"--agent={problem.agent}",) if problem.agent else ()
    return NextStep(advice, (command("verify", root), command("accept-loss", root, *agent, "--why", "REASON")))


def _missing_unnamed(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "Merge what may have them: a replaced master (replaced-master-*.db), a hub, a newer snapshot."
    return NextStep(advice, (command("merge", root, "--from", "DATABASE"), command("verify", root)))


def _deleted_by_hand(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "See which ones, and accept that they are gone. If that was a mistake, restore a snapshot instead."
    return NextStep(advice, (command("verify", root), command("accept-loss", root, "--why", "REASON")))


def _budget_full(_: Problem, report: StatusReport, root: Path) -> NextStep:
    steps, commands = [], []
    budget = report.budget
    if budget is not None and budget.limit_bytes < budget.max_bytes:
        steps.append("free space on the disk")
    if budget is not None and (report.pending_rows or budget.on_full == "drop-oldest"):
        steps.append("merge")
        commands.append(command("merge", root))
    if budget is not None and budget.max_bytes < budget.least_bytes:
        shards, least = units.count(budget.open_shards, "shard"), units.size(budget.least_bytes)
        steps.append(f"close shards that are not used ({shards} open, and one more needs {least})")
    steps += ["prune old rows", "raise the budget"]
    commands += [command("prune", root, "--older-than", "AGE"), command("merge", root, "--max-bytes", "SIZE")]
    advice = ", or ".join(steps)
    return NextStep(f"{advice[0].upper()}{advice[1:]}:", tuple(commands))


def _budget_high(_: Problem, __: StatusReport, root: Path) -> NextStep:
    commands = command("prune", root, "--older-than", "AGE", "--dry-run"), command("merge", root, "--max-bytes", "SIZE")
    return NextStep("Prune old rows, or raise the budget, before writers are refused:", commands)


def _clock(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "If the clock is wrong, set it. If it is right, confirm it:"
    return NextStep(advice, (command("clock", root), command("clock", root, "--confirm")))


def _agent_clock(problem: Problem, _: StatusReport, root: Path) -> NextStep:
    advice = "Set that device's clock. If wrong changes must not win, erase them, and write these keys again:"
    return NextStep(advice, (command("erase", root, problem.table, "--where", "CONDITION", "--dry-run"),))


def _watcher(_: Problem, report: StatusReport, __: Path) -> NextStep:
    pid = None if report.watcher is None else report.watcher.pid
    process = "PID" if pid is None else str(pid)
    if report.watcher is not None and report.watcher.is_stopped:
        return NextStep("Let it go on:", (f"kill -CONT {process}",))
    advice = "See what its log says, and restart it: end it, and start it again unless a service manager does so:"
    return NextStep(advice, (f"kill {process}",))


def _merge(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "Merge now, and see that a service or a cron job does it from now on (`edgeshard help operating`):"
    return NextStep(advice, (command("merge", root),))


def _receipt(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "If `edgeshard status` of that database shows this id, confirm it, with the FILE of its receipt:"
    return NextStep(advice, (command("receipt", root, "FILE", "--trust"),))


_STEPS: Final[dict[ProblemKind, Callable[[Problem, StatusReport, Path], NextStep]]] = {
    "damaged-master": _damaged_master,
    "quarantined": _quarantined,
    "missing": _missing,
    "missing-unnamed": _missing_unnamed,
    "deleted-by-hand": _deleted_by_hand,
    "blocked": _blocked,
    "budget-full": _budget_full,
    "budget-high": _budget_high,
    "clock-unconfirmed": _clock,
    "clock-doubtful": _clock,
    "agent-clock-ahead": _agent_clock,
    "watcher-stalled": _watcher,
    "no-merger": _merge,
    "pending": _merge,
    "receipt-unconfirmed": _receipt,
}

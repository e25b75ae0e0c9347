"""What to do about each problem that `status` or `verify` finds: the one place for commands to paste."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard import units
from edgeshard.cli import output
from edgeshard.errors import printable
from edgeshard.reports import (
    OLDER_MASTER,
    OTHER_MASTER,
    PEER,
    PRUNED,
    REPLACED,
    UNKNOWN,
    Gap,
    Problem,
    ProblemKind,
    StatusReport,
    VerifyReport,
)


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

    def lines(self, max_width: int) -> list[str]:
        """Return it as lines for people: the advice, and below it the commands."""
        commands = [line for each in self.commands for line in output.command_lines(each, max_width, "    ")]
        return [*output.paragraph(self.advice, max_width, "  "), *commands]


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
    return _restore(root)


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


def _unreadable(problem: Problem, report: StatusReport, root: Path) -> NextStep:
    shard = next((shard for shard in report.shards if shard.name == problem.shard), None)
    is_mergers = shard is not None and shard.denied_to == "merger"
    run_it = "" if is_mergers else "run this as the user that it belongs to, or "
    advice = (
        f"That says nothing about the shard: leave it where it is, and {run_it}correct the owners and modes "
        "(`edgeshard help operating`, Permissions). These are:"
    )
    way = (str(root), os.path.join(root, "shards"), os.path.join(root, "shards", problem.shard))
    return NextStep(advice, (f"ls -ld {' '.join(map(quote, way))}",))


def move_away(path: str) -> str:
    """Return the command that moves a shard with its WAL out of a store, to a new folder, and says which."""
    return f'mv -v {quote(path)}* "$(mktemp -d /var/tmp/XXXXXX)"'


def _blocked(problem: Problem, _: StatusReport, root: Path) -> NextStep:
    path = os.path.join(root, "shards", problem.shard)
    other = root.with_name(f"{root.name}-blocked") if root.name else Path("blocked")
    advice = (
        "Correct the class in the agent, and let it write to a table with another name (`edgeshard help tables`). Keep "
        "the rows that are there in a store of their own, and move the shard away while its agent is stopped:"
    )
    return NextStep(advice, (command("init", other), command("merge", other, "--from", path), move_away(path)))


def _missing(_: Problem, __: StatusReport, root: Path) -> NextStep:
    return NextStep("See where they are, and how to get them back or to accept the loss:", (command("verify", root),))


def _missing_unnamed(_: Problem, __: StatusReport, root: Path) -> NextStep:
    return _merge_others(root)


def _deleted_by_hand(_: Problem, __: StatusReport, root: Path) -> NextStep:
    return NextStep("See which ones, and how to accept that or to undo it:", (command("verify", root),))


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
    steps += ["delete old rows for good", "raise the budget"]
    commands += [command("prune", root, "--older-than", "AGE"), command("merge", root, "--max-bytes", "SIZE")]
    advice = ", or ".join(steps)
    return NextStep(f"{advice[0].upper()}{advice[1:]}:", tuple(commands))


def _budget_high(_: Problem, report: StatusReport, root: Path) -> NextStep:
    merge = (command("merge", root),) if report.pending_rows else ()
    first = "Merge, prune" if merge else "Prune"
    prune, enlarge = command("prune", root, "--older-than", "AGE"), command("merge", root, "--max-bytes", "SIZE")
    advice = f"{first} old rows, or raise the budget, before writers are refused:"
    return NextStep(advice, (*merge, prune, enlarge))


def _clock(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = "Set the clock if it is wrong. Only if it is right, and was right when rows arrived, confirm it:"
    return NextStep(advice, (command("clock", root, "--confirm"),))


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


def _rejected(_: Problem, __: StatusReport, root: Path) -> NextStep:
    advice = (
        "See which ones, and why. Let the agents write what PostgreSQL can store, or change the table there, and try "
        "again; or dismiss them:"
    )
    retry, dismiss = ("push", "DSN", "--retry-rejected"), ("rejected", "--dismiss", "--why", "REASON")
    steps = [command(verb, root, *rest) for verb, *rest in (("rejected",), retry, dismiss)]
    return NextStep(advice, tuple(steps))


def _stalled_merge(_: Problem, report: StatusReport, root: Path) -> NextStep:
    merge = report.merge
    process = "PID" if merge is None or merge.pid is None else str(merge.pid)
    if merge is not None and merge.is_stopped:
        return NextStep("Let it go on:", (f"kill -CONT {process}",))
    advice = "If it hangs, end it: what it committed stays, and the next merge continues."
    find = (f"lslocks | grep {quote(str(root / 'merge.lock'))}",) if process == "PID" else ()
    return NextStep(advice, (*find, f"kill {process}", command("merge", root)))


_STEPS: Final[dict[ProblemKind, Callable[[Problem, StatusReport, Path], NextStep]]] = {
    "damaged-master": _damaged_master,
    "quarantined": _quarantined,
    "unreadable": _unreadable,
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
    "merge-stalled": _stalled_merge,
    "no-merger": _merge,
    "pending": _merge,
    "receipt-unconfirmed": _receipt,
    "rejected": _rejected,
}


# -- what verify found ------------------------------------------------------------------------------------------------


#: Gaps of one finding for which a command is given; the table lists all of them.
_GAPS_MAX: Final = 3


@attrs.frozen
class Finding:
    """Something that `verify` found, and what to do about it.

    Attributes:
        kind: "damage", "deleted-by-hand", "missing-unnamed", or the cause of a loss: see `reports.Loss`.
        text: what was found, in words.
        step: what to do.
    """

    kind: str
    text: str
    step: NextStep

    def as_dict(self) -> dict[str, Any]:
        """Return it as an item in JSON."""
        return {"kind": self.kind, "text": self.text} | self.step.as_dict()


def findings(report: VerifyReport, root: Path) -> list[Finding]:
    """Return what `verify` found in the store in `root`; losses with the same cause are one finding."""
    found = []
    if report.errors:
        found.append(Finding("damage", "the master is damaged, or contradicts itself", _restore(root)))
    losses: dict[tuple[str, str, str], list[Gap]] = {}
    for loss in report.losses:
        losses.setdefault((loss.cause, loss.database, loss.kind), []).append(loss.gap)
    for (cause, database, kind), gaps in losses.items():
        rows, step = units.count(sum(map(len, gaps)), "row"), _loss_step(cause, database, kind, gaps, root)
        found.append(Finding(cause, f"{rows} missing: {where(cause, database, kind)}", step))
    if report.by_hand:
        rows = units.count(sum(map(len, report.by_hand)), "row")
        found.append(
            Finding("deleted-by-hand", f"{rows} deleted from this master by hand", _accept(root, report.by_hand))
        )
    if report.unnamed:
        found.append(Finding("missing-unnamed", report.unnamed, _merge_others(root)))
    return found


def where(cause: str, database: str, kind: str) -> str:
    """Return where missing rows are."""
    if cause == PEER:
        what = "database" if kind == "edgeshard" else f"{printable(kind)} database"
        return f"{what} {database} holds them"
    if cause == PRUNED:
        return f"master {database} pruned them"
    if cause == OTHER_MASTER:
        return f"master {database}"
    return _WHERE[cause]


_WHERE: Final = {
    OLDER_MASTER: "this master held them before an older copy of it was restored",
    REPLACED: "the replaced master",
    UNKNOWN: "unknown",
}


def _restore(root: Path) -> NextStep:
    advice = (
        "Stop mergers and readers, and restore your last good SNAPSHOT. Until then rows stay safe in the shards. "
        "Without a snapshot: `edgeshard help operating`, 'A damaged master'."
    )
    return NextStep(advice, (command("restore", root, "SNAPSHOT"),))


def _merge_others(root: Path) -> NextStep:
    advice = "Merge what may have them: a replaced master, a hub, a newer snapshot."
    return NextStep(advice, (*_merges(root), command("merge", root, "--from", "DATABASE")))


def _loss_step(cause: str, database: str, kind: str, gaps: Sequence[Gap], root: Path) -> NextStep:
    accept = _accept(root, gaps).commands
    if cause == PEER and kind != "edgeshard":
        return NextStep("Nothing is lost: the rows are there, and need not come back. Accept that:", accept)
    if cause in (PEER, OTHER_MASTER):
        advice = f"Merge the store whose `edgeshard status` shows the id {database}, its snapshot, or a bundle of it:"
        return NextStep(advice, (command("merge", root, "--from", "DATABASE"),))
    if cause == PRUNED:
        return NextStep("They were deleted by rule. Accept that:", accept)
    if cause in (OLDER_MASTER, REPLACED):
        advice = "Merge the master that was replaced, or a newer snapshot of it. Without any, accept the loss:"
        merges = _merges(root) or (command("merge", root, "--from", "DATABASE"),)
        return NextStep(advice, (*merges, *accept))
    advice = (
        "If status shows that their shard is quarantined, salvage it; what that could not read is lost. If they are "
        "lost for good, accept that:"
    )
    return NextStep(advice, (command("status", root), *accept))


def _accept(root: Path, gaps: Sequence[Gap]) -> NextStep:
    """Return how to accept the loss of these rows, and of no others that are missing for another reason."""
    advice = "Accept that they are gone. If that was a mistake, restore a snapshot, which has them."
    commands = [
        command("accept-loss", root, "--stream", gap.stream, "--seqs", f"{gap.first}-{gap.last}", "--why", "REASON")
        for gap in gaps[:_GAPS_MAX]
    ]
    return NextStep(advice, tuple(commands))


def _merges(root: Path) -> tuple[str, ...]:
    """Return a command for each replaced master that is in the store's folder."""
    return tuple(command("merge", root, "--from", str(path)) for path in sorted(root.glob("replaced-master-*.db")))

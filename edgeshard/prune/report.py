"""What a prune says it did. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

#: What is named of what keeps deletions here.
_NAMED_MAX = 5


@attrs.frozen
class PruneReport:
    """What one prune did, or, for a dry run, would do.

    Attributes:
        rows: rows deleted from the master.
        by_reason: the same, by the rule that asked for it.
        kept_back: rows that a rule asked for and that stay, since no peer holds them, or not their whole transaction.
        deletions_behind: deletions of keyed tables that are old enough and stay, since older changes may yet come.
        behind: what may bring them, and what to do, each in a sentence.
        deletions_unheard: deletions that stay, since a database of which there is a receipt does not know of them.
        unheard: the ids of these databases, in hexadecimal.
        used_bytes: what the pages in use take, and the log.
        file_bytes: the size of the master's file.
        log_bytes: the size of its log.
        free_bytes: what lies free in the file, for rows to come.
        shrunk_bytes: by how much the file became smaller.
        can_shrink: whether the file can become smaller; one that an earlier version made cannot, and is filled again.
        fits: whether the master takes no more than what it was to take; True where nothing was said of that.
        seconds: how long it took.
        dry_run: whether nothing was done. The sizes are then those of now, and `fits` is what is expected.
        stopped: whether it was asked to stop before it was through; the next prune goes on.
    """

    rows: int = 0
    by_reason: Mapping[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    deletions_behind: int = 0
    behind: tuple[str, ...] = ()
    deletions_unheard: int = 0
    unheard: tuple[str, ...] = ()
    used_bytes: int = 0
    file_bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    shrunk_bytes: int = 0
    can_shrink: bool = True
    fits: bool = True
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return attrs.asdict(self)

    def __str__(self) -> str:
        line = f"{'would prune' if self.dry_run else 'pruned'} {self.rows} rows"
        if len(self.by_reason) > 1:
            line += f" ({', '.join(f'{reason}: {rows}' for reason, rows in self.by_reason.items())})"
        if self.kept_back:
            line += f", kept {self.kept_back} back that nobody else holds"
        line += self._deletions_kept()
        line += f", in {self.seconds:.3f} s; {self.used_bytes} bytes in use, {self.free_bytes} free in the file"
        if self.shrunk_bytes:
            line += f", {self.shrunk_bytes} given back to the disk"
        if not self.can_shrink:
            line += ", which is for rows to come: an earlier version made the file, and it cannot become smaller"
        if self.stopped:
            line += "; asked to stop, the next prune goes on"
        if not self.fits:
            line += "; it does not fit into what it was to take"
        return line

    def _deletions_kept(self) -> str:
        line = ""
        if self.deletions_behind:
            line += f", kept {self.deletions_behind} deletions since older changes may yet come ({_some(self.behind)})"
        if self.deletions_unheard:
            line += (
                f", kept {self.deletions_unheard} deletions that not all databases with a receipt know of "
                f"({_some(self.unheard)}: push, or export to them, and note their next receipts)"
            )
        return line


def _some(named: Sequence[str]) -> str:
    """As many as can be read."""
    more = f"; and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
    return "; ".join(named[:_NAMED_MAX]) + more


def together(reports: Sequence[PruneReport]) -> PruneReport | None:
    """One report of several prunes of a master, one after the other; None where there was none."""
    if not reports:
        return None
    by_reason: Counter[str] = Counter()
    for report in reports:
        by_reason.update(report.by_reason)
    return attrs.evolve(
        reports[-1],  # the sizes are those after the last one
        rows=sum(report.rows for report in reports),
        by_reason=dict(by_reason),
        kept_back=sum(report.kept_back for report in reports),
        deletions_behind=sum(report.deletions_behind for report in reports),
        behind=tuple(sorted({why for report in reports for why in report.behind})),
        deletions_unheard=sum(report.deletions_unheard for report in reports),
        unheard=tuple(sorted({peer for report in reports for peer in report.unheard})),
        shrunk_bytes=sum(report.shrunk_bytes for report in reports),
        fits=all(report.fits for report in reports),
        seconds=sum(report.seconds for report in reports),
        stopped=any(report.stopped for report in reports),
    )

"""What operations report: plain values that print as one line and turn into JSON.

One module for each operation. Import the classes from this package, which loads a module when it is first needed: most
programs need few of them, and to make all the classes takes 20 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeshard import lazy

if TYPE_CHECKING:
    from edgeshard.reports.activity import Activity as Activity
    from edgeshard.reports.activity import AgentRows as AgentRows
    from edgeshard.reports.activity import Arrivals as Arrivals
    from edgeshard.reports.activity import DayWritten as DayWritten
    from edgeshard.reports.base import Report as Report
    from edgeshard.reports.clock import ClockAhead as ClockAhead
    from edgeshard.reports.clock import ClockReport as ClockReport
    from edgeshard.reports.compare import CHANGED as CHANGED
    from edgeshard.reports.compare import DELETED as DELETED
    from edgeshard.reports.compare import DIFFERENCES_MAX as DIFFERENCES_MAX
    from edgeshard.reports.compare import EXTRA as EXTRA
    from edgeshard.reports.compare import LOST as LOST
    from edgeshard.reports.compare import CompareReport as CompareReport
    from edgeshard.reports.compare import Difference as Difference
    from edgeshard.reports.erase import ErasedElsewhere as ErasedElsewhere
    from edgeshard.reports.erase import EraseReport as EraseReport
    from edgeshard.reports.exchange import AWAITING as AWAITING
    from edgeshard.reports.exchange import DOUBTFUL as DOUBTFUL
    from edgeshard.reports.exchange import NEXT as NEXT
    from edgeshard.reports.exchange import PUT_BACK as PUT_BACK
    from edgeshard.reports.exchange import ExportReport as ExportReport
    from edgeshard.reports.exchange import ForgetPeerReport as ForgetPeerReport
    from edgeshard.reports.exchange import PeerStatus as PeerStatus
    from edgeshard.reports.exchange import ReceiptReport as ReceiptReport
    from edgeshard.reports.imports import ImportedFile as ImportedFile
    from edgeshard.reports.imports import ImportedTable as ImportedTable
    from edgeshard.reports.imports import ImportReport as ImportReport
    from edgeshard.reports.init import InitReport as InitReport
    from edgeshard.reports.lines import BAD_LINES_MAX as BAD_LINES_MAX
    from edgeshard.reports.lines import BadLine as BadLine
    from edgeshard.reports.lines import WriteReport as WriteReport
    from edgeshard.reports.loss import OLDER_MASTER as OLDER_MASTER
    from edgeshard.reports.loss import OTHER_MASTER as OTHER_MASTER
    from edgeshard.reports.loss import PEER as PEER
    from edgeshard.reports.loss import PRUNED as PRUNED
    from edgeshard.reports.loss import REPLACED as REPLACED
    from edgeshard.reports.loss import UNKNOWN as UNKNOWN
    from edgeshard.reports.loss import AcceptedLoss as AcceptedLoss
    from edgeshard.reports.loss import AcceptLossReport as AcceptLossReport
    from edgeshard.reports.loss import Loss as Loss
    from edgeshard.reports.merge import GAPS_MAX as GAPS_MAX
    from edgeshard.reports.merge import MergeReport as MergeReport
    from edgeshard.reports.prune import PrunableTable as PrunableTable
    from edgeshard.reports.prune import PruneReport as PruneReport
    from edgeshard.reports.prune import combine_prunes as combine_prunes
    from edgeshard.reports.push import PushReport as PushReport
    from edgeshard.reports.push import Rejected as Rejected
    from edgeshard.reports.push import RejectedRange as RejectedRange
    from edgeshard.reports.push import RejectedReport as RejectedReport
    from edgeshard.reports.rows import Blocked as Blocked
    from edgeshard.reports.rows import Gap as Gap
    from edgeshard.reports.rows import Quarantined as Quarantined
    from edgeshard.reports.rows import RowStates as RowStates
    from edgeshard.reports.rows import add_states as add_states
    from edgeshard.reports.salvage import SalvageReport as SalvageReport
    from edgeshard.reports.service import MergeStatus as MergeStatus
    from edgeshard.reports.service import WatcherStatus as WatcherStatus
    from edgeshard.reports.status import BudgetStatus as BudgetStatus
    from edgeshard.reports.status import DeniedTo as DeniedTo
    from edgeshard.reports.status import Level as Level
    from edgeshard.reports.status import MasterStatus as MasterStatus
    from edgeshard.reports.status import Problem as Problem
    from edgeshard.reports.status import ProblemKind as ProblemKind
    from edgeshard.reports.status import ShardStatus as ShardStatus
    from edgeshard.reports.status import SpaceUse as SpaceUse
    from edgeshard.reports.status import StatusReport as StatusReport
    from edgeshard.reports.tables import ColumnInfo as ColumnInfo
    from edgeshard.reports.tables import TableInfo as TableInfo
    from edgeshard.reports.tables import TablesReport as TablesReport
    from edgeshard.reports.verify import RestoreReport as RestoreReport
    from edgeshard.reports.verify import VerifyReport as VerifyReport
    from edgeshard.reports.write_stats import WriteStats as WriteStats

_NAMES: Final = {
    "activity": ("Activity", "AgentRows", "Arrivals", "DayWritten"),
    "base": ("Report",),
    "clock": ("ClockAhead", "ClockReport"),
    "compare": (
        "CHANGED",
        "CompareReport",
        "DELETED",
        "DIFFERENCES_MAX",
        "Difference",
        "EXTRA",
        "LOST",
    ),
    "erase": ("EraseReport", "ErasedElsewhere"),
    "exchange": (
        "AWAITING",
        "DOUBTFUL",
        "ExportReport",
        "ForgetPeerReport",
        "NEXT",
        "PUT_BACK",
        "PeerStatus",
        "ReceiptReport",
    ),
    "imports": ("ImportReport", "ImportedFile", "ImportedTable"),
    "init": ("InitReport",),
    "lines": ("BAD_LINES_MAX", "BadLine", "WriteReport"),
    "loss": (
        "AcceptLossReport",
        "AcceptedLoss",
        "Loss",
        "OLDER_MASTER",
        "OTHER_MASTER",
        "PEER",
        "PRUNED",
        "REPLACED",
        "UNKNOWN",
    ),
    "merge": ("GAPS_MAX", "MergeReport"),
    "prune": ("PrunableTable", "PruneReport", "combine_prunes"),
    "push": ("PushReport", "Rejected", "RejectedRange", "RejectedReport"),
    "rows": ("Blocked", "Gap", "Quarantined", "RowStates", "add_states"),
    "salvage": ("SalvageReport",),
    "service": ("MergeStatus", "WatcherStatus"),
    "status": (
        "BudgetStatus",
        "DeniedTo",
        "Level",
        "MasterStatus",
        "Problem",
        "ProblemKind",
        "ShardStatus",
        "SpaceUse",
        "StatusReport",
    ),
    "tables": ("ColumnInfo", "TableInfo", "TablesReport"),
    "verify": ("RestoreReport", "VerifyReport"),
    "write_stats": ("WriteStats",),
}

_MODULES: Final = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # which would believe that there is every name
    __getattr__ = lazy.loader(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

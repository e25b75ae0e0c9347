"""How reports read: counts have their plural, bytes their unit, and a dry run speaks in the conditional throughout."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from edgeshard.reports import (
    AcceptLossReport,
    Blocked,
    EraseReport,
    ExportReport,
    Gap,
    MergeReport,
    PruneReport,
    PushReport,
    Quarantined,
    Report,
    RestoreReport,
    SalvageReport,
)

GAP = Gap("pump", "ab", 1, 1)
ALL: dict[str, Any] = {
    "rows": 1200, "truncated": 1200, "removed": 1, "shards": 1, "quarantined": (Quarantined("x.db", "it is damaged"),),
    "blocked": (Blocked("y.db", "reading", 1, "it has another type"),), "gaps": (GAP,), "missing_rows": 1, "dropped": 2,
}  # fmt: skip


def test_a_merge_that_is_only_a_dry_run_speaks_in_the_conditional() -> None:
    text = str(MergeReport(**ALL, seconds=0.1, dry_run=True))
    assert text == (
        "would merge 1,200 rows from 1 shard, would truncate 1,200, in 0.100 s; would remove 1 shard of agents that "
        "have ended; would drop the oldest rows to stay within the disk budget: 2; 1 database would be quarantined; "
        "1 row would be blocked of reading; 1 row would be missing in 1 gap"
    )
    for word in ("merge", "truncate", "remove", "drop"):
        assert text.count(word) == text.count(f"would {word}")


def test_a_merge_says_what_it_did() -> None:
    text = str(MergeReport(**ALL, seconds=0.1))
    assert "would" not in text
    assert text.startswith("merged 1,200 rows from 1 shard, truncated 1,200, in 0.100 s; removed 1 shard of agents")


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (PruneReport(1, kept_back=1, dry_run=True), "would prune 1 row, would keep 1 row that no other database holds"),
        (PruneReport(rows=1200, used_bytes=1_500_000), "pruned 1,200 rows, in 0.000 s; 1.5 MB in use, 0 B free"),
        (PruneReport(fits=False, dry_run=True), "the master would still be larger than the rules allow"),
        (
            PushReport("db", rows=1, streams=1, remaining=1),
            "pushed 1 row of 1 stream to db, in 0.000 s; 1 row still to",
        ),
        (ExportReport("x", 1, 2, 1, 1500), "exported 1 row of 2 streams in 1.5 kB; left out 1 row that the receiver"),
        (
            SalvageReport("x", "pump", 1, 0, 1, (GAP,), 1),
            "salvaged 1 row of 1 stream of agent 'pump', 0 of them new; 1 row",
        ),
        (
            SalvageReport("x", "pump", missing_pages=1),
            "nothing in x can be read; its end is cut off, and with it 1 page",
        ),
        (AcceptLossReport((GAP,), dry_run=True), "would accept the loss of 1 row in 1 run"),
        (
            EraseReport(1, pending=1, dry_run=True),
            "would erase 1 row; 1 pending row would be merged and examined first",
        ),
        (RestoreReport("x", rows=1200, streams=1, gaps=(GAP,), dry_run=True), "; 1 row would be missing in 1 gap"),
    ],
)
def test_amounts_in_reports(report: Report, text: str) -> None:
    assert text in str(report)


def test_json_has_plain_numbers() -> None:
    values = MergeReport(**ALL).as_dict()
    assert {name: ALL[name] for name in ("rows", "truncated", "shards")} == {
        name: values[name] for name in ("rows", "truncated", "shards")
    }
    assert 1200 == attrs.asdict(PruneReport(rows=1200))["rows"]

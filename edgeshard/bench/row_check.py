"""Compare the rows read back with the rows acknowledged: each must be there once, exactly as written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from edgeshard.bench.workload import payload


@attrs.frozen
class RowCheck:
    """The outcome of the comparison, as numbers of rows.

    Attributes:
        acknowledged: rows whose commit returned to the agent.
        lost: acknowledged rows that are missing.
        doubled: additional copies of rows.
        changed: rows whose payload differs from what was written.
        foreign: rows that no agent had acknowledged.
    """

    acknowledged: int
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    foreign: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether every acknowledged row is there once, and no other row."""
        return not (self.lost or self.doubled or self.changed or self.foreign)

    def __add__(self, other: RowCheck) -> RowCheck:
        return RowCheck(*(one + two for one, two in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))

    def __str__(self) -> str:
        if self.is_exact:
            return "all"
        counts = {"lost": self.lost, "doubled": self.doubled, "changed": self.changed, "foreign": self.foreign}
        return ", ".join(f"{count:,} {name.upper()}" for name, count in counts.items() if count)


def check_rows(rows: Iterable[tuple[int, int, str]], acknowledged: Sequence[int], payload_bytes: int) -> RowCheck:
    """Compare the rows read back with those acknowledged.

    Args:
        rows: the rows read back as (agent, number, payload), in any order.
        acknowledged: for each agent the number of rows it wrote; their numbers start at 0.
        payload_bytes: size of each payload.
    """
    is_found = [bytearray(count) for count in acknowledged]
    doubled = changed = foreign = 0
    for agent, number, text in rows:
        if not (0 <= agent < len(is_found) and 0 <= number < len(is_found[agent])):
            foreign += 1
            continue
        if is_found[agent][number]:
            doubled += 1
        is_found[agent][number] = 1
        if text != payload(agent, number, payload_bytes):
            changed += 1
    return RowCheck(sum(acknowledged), sum(flags.count(0) for flags in is_found), doubled, changed, foreign)

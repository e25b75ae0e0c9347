"""Which of the acknowledged rows are there: each once, and as it was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from edgeshard.bench.workload import payload


@attrs.frozen
class Account:
    """What became of the rows.

    Attributes:
        acknowledged: rows that the agents were told are kept.
        lost: of these, rows that are not there.
        doubled: rows that are there once more.
        changed: rows whose payload is not what was written.
        foreign: rows that nobody wrote, or that were refused.
    """

    acknowledged: int
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    foreign: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether each acknowledged row is there once, and nothing else."""
        return not (self.lost or self.doubled or self.changed or self.foreign)

    def __add__(self, other: Account) -> Account:
        return Account(*(one + two for one, two in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))

    def __str__(self) -> str:
        if self.is_exact:
            return "all"
        named = {"lost": self.lost, "doubled": self.doubled, "changed": self.changed, "foreign": self.foreign}
        return ", ".join(f"{count:,} {name.upper()}" for name, count in named.items() if count)


def account(rows: Iterable[tuple[int, int, str]], acknowledged: Sequence[int], payload_bytes: int) -> Account:
    """Compare what is there with what was acknowledged.

    Args:
        rows: what was read back, as (agent, number, payload), in any order.
        acknowledged: for each agent how many rows it wrote; their numbers count from 0.
        payload_bytes: the size of each payload.
    """
    times = [bytearray(count) for count in acknowledged]
    doubled = changed = foreign = 0
    for agent, number, text in rows:
        if not (0 <= agent < len(times) and 0 <= number < len(times[agent])):
            foreign += 1
            continue
        if times[agent][number]:
            doubled += 1
        times[agent][number] = 1
        if text != payload(agent, number, payload_bytes):
            changed += 1
    return Account(sum(acknowledged), sum(one.count(0) for one in times), doubled, changed, foreign)

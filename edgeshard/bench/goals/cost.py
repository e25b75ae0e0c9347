"""The figures of one of edgeshard's own costs, or of what it is compared with, in one round."""

from __future__ import annotations

from typing import Final

import attrs

#: The contestant that is edgeshard itself; the others are what it is compared with.
OURS: Final = "edgeshard"


@attrs.frozen
class Cost:
    """What a contestant needed for a workload in one round.

    Attributes:
        workload: name of the workload, as in `registry.COSTS`.
        contestant: `OURS`, or what edgeshard is compared with.
        round_number: the round, from 0.
        figures: what was measured, by the names in `samples.FIGURES`.
    """

    workload: str
    contestant: str
    round_number: int
    figures: dict[str, float]

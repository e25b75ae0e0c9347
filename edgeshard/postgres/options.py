"""Defaults and limits of a push, and its `Listener`: what a caller needs before psycopg is loaded."""

from __future__ import annotations

from typing import Final, Literal

from edgeshard import reports
from edgeshard.errors import EdgeshardError

#: Rows of one transaction, by default and at most.
BATCH: Final = 20_000

BATCH_MAX: Final = 1_000_000

#: How often a watching push checks whether a merge brought rows, in seconds.
INTERVAL_S: Final = 1.0


#: What to do with characters that PostgreSQL cannot store: U+0000, and halves of surrogate pairs in JSON.
OnInvalid = Literal["reject", "replace", "escape"]

ON_INVALID: Final[tuple[OnInvalid, ...]] = ("reject", "replace", "escape")


class Listener:
    """Receives the events of a watching push. Override what you need; these methods do nothing."""

    def opened(self) -> None:
        """Called before the first check."""

    def pushed(self, report: reports.PushReport) -> None:
        """Called after a push that pushed or rejected rows."""

    def failed(self, error: EdgeshardError, delay_s: float) -> None:
        """Called after a push that failed and will be tried again after `delay_s` seconds."""

    def recovered(self) -> None:
        """Called when pushing works again."""

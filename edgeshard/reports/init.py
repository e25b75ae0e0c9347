"""What making a store did."""

from __future__ import annotations

import attrs

from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class InitReport(Report):
    """What `Store.init` did, or what a dry run would do.

    Attributes:
        path: the store's folder.
        created: whether the store was made; False if there was one.
        dry_run: whether nothing was changed.
    """

    path: str
    created: bool
    dry_run: bool = False

    def _line(self) -> str:
        if not self.created:
            return f"{self.path} is a store already; nothing was changed"
        return f"{'would make' if self.dry_run else 'made'} the store {self.path}"

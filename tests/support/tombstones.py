"""Collect the tombstones of keyed tables with their own rule only."""

from __future__ import annotations

from typing import Any

import edgeshard

GRACE = "10d"


def collect(store: edgeshard.Store, **options: Any) -> Any:
    """Prune with only this rule."""
    return store.prune(deletions_older_than=GRACE, **options)

"""Collect the deletions of keyed tables by their own rule alone."""

from __future__ import annotations

from typing import Any

import edgeshard

GRACE = "10d"


def collect(store: edgeshard.Store, **options: Any) -> Any:
    """Prune by this rule alone."""
    return store.prune(deletions_older_than=GRACE, **options)

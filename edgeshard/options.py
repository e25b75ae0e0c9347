"""Types, defaults and limits of arguments: what a caller needs before it loads what does the work."""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, get_args

# -- writing ----------------------------------------------------------------------------------------------------------

Durability = Literal["process", "power"]

#: What SQLite calls each durability.
DURABILITIES: Final = {"process": "NORMAL", "power": "FULL"}

#: How long to wait for the shard's lock before reporting that another handle has it, in seconds: a merger that removes
#: the empty shard of an agent that has ended holds it for some milliseconds.
LOCK_WAIT_S: Final = 0.5

#: How long to wait for one transaction of another thread by default, in seconds.
TRANSACTION_WAIT_S: Final = 30.0

References = Mapping[str, str | os.PathLike[str]]

# -- merging ----------------------------------------------------------------------------------------------------------

#: The longest interval, in seconds: about ten years, and well within what waiting for a lock can count.
MAX_INTERVAL_S: Final = 3e8

#: How the watcher learns that there may be new rows: "native" relies on the file system's events, "polling" scans once
#: in each interval, and "auto" relies on events for as long as these are seen to arrive.
OBSERVERS: Final = ("auto", "native", "polling")

#: How long a statement waits for another connection's lock, in seconds.
BUSY_TIMEOUT_S: Final = 60.0

# -- reading ----------------------------------------------------------------------------------------------------------

#: The values of a statement's parameters: in order, or by name.
Params = Sequence[Any] | Mapping[str, Any]

#: Which columns to decode as JSON: those that are declared so, or these as well.
DecodeJson = bool | Collection[str]

#: What `read` does with a row that the class cannot have.
OnError = Literal["raise", "skip"]

ON_ERROR: Final = get_args(OnError)

# -- pruning ----------------------------------------------------------------------------------------------------------


class PruneRule(TypedDict, total=False):
    """One rule of `Store(prune=...)`; `Store.prune` explains each key."""

    older_than: str | float | datetime.timedelta
    keep_rows: int
    max_bytes: str | int
    deletions_older_than: str | float | datetime.timedelta
    forget_after: str | float | datetime.timedelta
    only_pushed: bool
    only_receipted: bool
    table: str | type

"""Which option of a command helps against an error. The Python API's own messages name its arguments and methods."""

from __future__ import annotations

import argparse
import os

from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    MergeInProgressError,
    ShardInUseError,
    WatcherStalledError,
)


def hint(error: EdgeshardError, options: argparse.Namespace) -> str:
    """Return what to add to the message of an error that ended a command, or ""."""
    if isinstance(error, (MergeInProgressError, ShardInUseError)) and not isinstance(error, WatcherStalledError):
        return _longer_wait(options)
    if isinstance(error, ConfigurationError) and _would_replace(options):
        return " (--force)"
    return ""


def _longer_wait(options: argparse.Namespace) -> str:
    """Return the option that waits for another process, unless the verb has none, or it was given."""
    if getattr(options, "is_lock_wait_given", True):
        return ""
    return f" (--lock-wait SECONDS{' waits longer' if options.lock_wait else ''})"


def _would_replace(options: argparse.Namespace) -> bool:
    target = getattr(options, "target", None)
    return target is not None and not getattr(options, "force", True) and os.path.lexists(target)

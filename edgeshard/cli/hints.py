"""Which option of a command helps against an error. The Python API's own messages name its arguments and methods."""

from __future__ import annotations

import argparse
import os

from edgeshard.errors import ConfigurationError, EdgeshardError, MergeInProgressError, ShardInUseError


def hint(error: EdgeshardError, options: argparse.Namespace) -> str:
    """Return what to add to the message of an error that ended a command, or ""."""
    if isinstance(error, (MergeInProgressError, ShardInUseError)) and hasattr(options, "lock_wait"):
        return " (--lock-wait SECONDS)"
    if isinstance(error, ConfigurationError) and _would_replace(options):
        return " (--force)"
    return ""


def _would_replace(options: argparse.Namespace) -> bool:
    target = getattr(options, "target", None)
    return target is not None and not getattr(options, "force", True) and os.path.lexists(target)

"""What a command says of an error that ended it. The Python API's own messages name its arguments and methods."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    MergeInProgressError,
    ShardInUseError,
    UnreadableRowError,
    WatcherStalledError,
)
from edgeshard.store import find_obstacle, resolve_target

#: What may follow the verb in an action, and says nothing without it: "merge into", "export to".
_PREPOSITIONS: Final = ("into", "to", "from", "of", "in")


def explain(error: EdgeshardError, options: argparse.Namespace) -> str:
    """Return the message of an error, to follow the name of the verb, which it does not repeat."""
    verb, words = options.verb.split("-"), error.action.split()
    if words[: len(verb)] == verb:
        words = words[len(verb) :]
        if words and words[0] in _PREPOSITIONS:
            words = words[1:]
    what = " ".join(filter(None, (*words, error.path)))
    return f"{what}: {error.cause}{_hint(error, options)}" if what else f"{error.cause}{_hint(error, options)}"


def _hint(error: EdgeshardError, options: argparse.Namespace) -> str:
    """Return the option that helps, or ""."""
    if isinstance(error, (MergeInProgressError, ShardInUseError)) and not isinstance(error, WatcherStalledError):
        return _longer_wait(options)
    if isinstance(error, UnreadableRowError) and getattr(options, "json_cols", False):
        return " (--json-cols)"
    if isinstance(error, ConfigurationError) and _would_replace(error, options):
        return " (--force)"
    return ""


def _longer_wait(options: argparse.Namespace) -> str:
    """Return the option that waits for another process, unless the verb has none, or it was given."""
    if getattr(options, "is_lock_wait_given", True):
        return ""
    return f" (--lock-wait SECONDS{' waits longer' if options.lock_wait else ''})"


def _would_replace(error: EdgeshardError, options: argparse.Namespace) -> bool:
    """Return whether the error is about the file to make, which exists, and which --force would replace."""
    target = getattr(options, "target", None)
    if target is None or getattr(options, "force", True) or error.path != resolve_target(target):
        return False
    try:
        return os.path.lexists(target) and not find_obstacle(target, Path(os.path.realpath(options.root)))
    except (OSError, EdgeshardError):  # the error itself says more
        return False

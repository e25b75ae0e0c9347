"""Exit codes, and which error is which. The one place where exceptions become exit codes."""

from __future__ import annotations

from typing import Final

from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DiskFullError,
    EdgeshardError,
    MergeInProgressError,
    PostgresDeniedError,
    PostgresUnavailableError,
    PostgresUnsuitableError,
    StorageBusyError,
    StorageIOError,
)

DONE: Final = 0

FAILED: Final = 1

USAGE: Final = 2

INCOMPLETE: Final = 3  # done, but something was set aside or is missing

# the names and numbers of BSD's sysexits.h
DATA_ERROR: Final = 65

UNAVAILABLE: Final = 69

IO_ERROR: Final = 74

TRY_AGAIN: Final = 75

NO_PERMISSION: Final = 77

CONFIGURATION: Final = 78

# what a shell reports of a process that SIGINT or SIGPIPE ended
INTERRUPTED: Final = 130

BROKEN_PIPE: Final = 141

_CODES: list[tuple[type[EdgeshardError], int]] = [
    (MergeInProgressError, TRY_AGAIN),
    (StorageBusyError, TRY_AGAIN),
    (AccessError, NO_PERMISSION),
    (DiskFullError, IO_ERROR),
    (StorageIOError, IO_ERROR),
    (ConfigurationError, CONFIGURATION),
    (PostgresUnavailableError, UNAVAILABLE),
    (PostgresDeniedError, NO_PERMISSION),
    (PostgresUnsuitableError, CONFIGURATION),
]


def exit_code(error: EdgeshardError) -> int:
    """The exit code of a command that ended with `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)

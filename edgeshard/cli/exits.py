"""Exit codes: the one place where exceptions and reports become exit codes."""

from __future__ import annotations

from typing import Final

from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DamagedError,
    DiskFullError,
    EdgeshardError,
    FormatError,
    MergeInProgressError,
    PostgresDeniedError,
    PostgresUnavailableError,
    PostgresUnsuitableError,
    ShardInUseError,
    StorageBusyError,
    StorageIOError,
)

DONE: Final = 0

FAILED: Final = 1

USAGE: Final = 2

INCOMPLETE: Final = 3  # done, but something is quarantined, blocked, rejected or missing

# names and numbers of BSD's sysexits.h
DATA_ERROR: Final = 65

UNAVAILABLE: Final = 69

IO_ERROR: Final = 74

TRY_AGAIN: Final = 75

NO_PERMISSION: Final = 77

CONFIGURATION: Final = 78

# what a shell reports for a process that SIGINT or SIGPIPE ended
INTERRUPTED: Final = 130

BROKEN_PIPE: Final = 141

_CODES: list[tuple[type[EdgeshardError], int]] = [
    (MergeInProgressError, TRY_AGAIN),
    (ShardInUseError, TRY_AGAIN),
    (StorageBusyError, TRY_AGAIN),
    (AccessError, NO_PERMISSION),
    (DamagedError, DATA_ERROR),
    (DiskFullError, IO_ERROR),
    (StorageIOError, IO_ERROR),
    (ConfigurationError, CONFIGURATION),
    (FormatError, CONFIGURATION),
    (PostgresUnavailableError, UNAVAILABLE),
    (PostgresDeniedError, NO_PERMISSION),
    (PostgresUnsuitableError, CONFIGURATION),
]


def exit_code(error: EdgeshardError) -> int:
    """Return the exit code of a command that ended with `error`."""
    return next((code for error_class, code in _CODES if isinstance(error, error_class)), FAILED)


def report_code(*, complete: bool) -> int:
    """Return the exit code of a command that ended with a report."""
    return DONE if complete else INCOMPLETE

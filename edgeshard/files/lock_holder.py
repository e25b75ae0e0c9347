"""Who holds a lock file: a note that the holder leaves in it, for the message of whoever is refused.

The lock decides who may go on; the note only explains. It is believed if the process that it names still runs, and if
the system's list of locks does not contradict it. So a note that a killed process left, or one of before a restart,
never names a process that has since got the same number.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import logging
import os
import re
import time
from pathlib import Path
from typing import Final, Literal, cast

import attrs

from edgeshard.files import fingerprint

logger = logging.getLogger("edgeshard.locks")

#: What a process has a lock for: to write to a shard, to remove it in a merge, to salvage it, or to watch a store.
Role = Literal["agent", "merge", "salvage", "watch"]

#: Where the note is in a lock file. What is before it belongs to `edgeshard.master.write_stats`.
NOTE_AT: Final = 128

_NOTE_BYTES: Final = 128

_PATTERN: Final = re.compile(
    rb"(agent|merge|salvage|watch) (\d{1,10}) (\d{1,20}) (\d{1,20}) (\d{1,20}) ([0-9a-f-]{0,36}) *\n"
)

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


@attrs.frozen
class _Process:
    """A process, as no other is at any time on this machine.

    Attributes:
        pid: its number, as it sees it itself.
        namespace: which processes that number distinguishes it from: a container counts its own; 0 if unknown.
        started: when it started, in ticks since the boot; 0 if unknown.
        boot_id: the boot; "" if unknown.
    """

    pid: int
    namespace: int
    started: int
    boot_id: str


@attrs.frozen
class Holder:
    """Who holds a lock.

    Attributes:
        role: what for.
        pid: the process; None if it is in another container, whose numbers mean nothing here.
        number: the number that the process has for itself.
        since: since when, in UTC, by the clock as it is now.
        held_s: for how long, in seconds.
    """

    role: Role
    pid: int | None
    number: int
    since: datetime.datetime
    held_s: float

    @property
    def is_this_process(self) -> bool:
        """Whether this process holds it itself."""
        return self.pid == os.getpid()

    @property
    def is_stopped(self) -> bool:
        """Whether a signal stopped the process (SIGSTOP, Ctrl-Z) and it has not been continued, as far as is known."""
        return self.pid is not None and is_stopped(self.pid)

    def describe(self) -> str:
        """Return which process it is, and since when it holds the lock."""
        today = datetime.datetime.now(datetime.UTC).date() == self.since.date()
        moment = self.since.strftime("%H:%M:%S UTC" if today else "%Y-%m-%d %H:%M UTC")
        return f"{self._describe_process()} since {moment}, {_duration(self.held_s)}"

    def _describe_process(self) -> str:
        if self.is_this_process:
            return "this process"
        if self.pid is None:
            return f"a process of another container, where its number is {self.number},"
        program = _program(self.pid)
        return f"process {self.pid} ({program})" if program else f"process {self.pid}"


def leave_note(lock: str | os.PathLike[str] | int, role: Role) -> bytes:
    """Write into a lock file that this process has taken it, and return the note, for `remove_note`.

    A failure is logged, because it only makes a message less helpful.

    Args:
        lock: the lock file, or a descriptor of it that can be written.
        role: what it was taken for.
    """
    this = _this_process(os.getpid())
    text = f"{role} {this.pid} {this.namespace} {this.started} {int(_uptime_s() * 1_000_000)} {this.boot_id}"
    note = text.ljust(_NOTE_BYTES - 1).encode() + b"\n"
    _write(lock, note)
    return note


def remove_note(lock: str | os.PathLike[str] | int, note: bytes) -> None:
    """Remove a note before its lock is released, unless another process holds the file by now and left its own."""
    _write(lock, b" " * _NOTE_BYTES, instead_of=note)


def find_holder(lock: str | os.PathLike[str]) -> Holder | None:
    """Return who holds a lock file that is locked, or None if that cannot be determined."""
    found = _PATTERN.fullmatch(_read(lock))
    if found is None:
        return None
    pid, namespace, started, began_us = map(int, found.groups()[1:5])
    process = _Process(pid, namespace, started, found[6].decode())
    this = _this_process(os.getpid())
    is_near = namespace == this.namespace
    held_s = _uptime_s() - began_us / 1_000_000
    if process.boot_id != this.boot_id or held_s < 0 or (is_near and not _is_running(process, lock)):
        return None
    role = cast("Role", found[1].decode())
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=held_s)
    return Holder(role, pid if is_near else None, pid, since, held_s)


def find_owner(lock: str | os.PathLike[str]) -> int | None:
    """Return the process that has a lock file, also one without a note, or None if that cannot be determined."""
    holder = find_holder(lock)
    if holder is not None:
        return holder.pid
    owners = _lock_owners(lock)
    return next(iter(owners)) if len(owners) == 1 and min(owners) > 0 else None


def is_stopped(pid: int) -> bool:
    """Return whether a signal stopped a process (SIGSTOP, Ctrl-Z), as far as is known."""
    return _stat(pid)[:1] == [b"T"]


def _is_running(process: _Process, lock: str | os.PathLike[str]) -> bool:
    """Return whether a process of this namespace runs, and may be the one that holds the lock."""
    if process.started != _started(process.pid):
        return False
    if not process.started:  # the system does not say: it is macOS, or /proc is hidden
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # it is another user's
    known = _lock_owners(lock)
    return not known or process.pid in known


@functools.lru_cache(maxsize=1)
def _this_process(pid: int) -> _Process:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return _Process(pid, namespace, _started(pid), fingerprint.boot_id())


def _started(pid: int) -> int:
    """Return when a process started, in ticks since the boot, or 0 if that cannot be determined."""
    try:
        return int(_stat(pid)[19])  # the 22nd field of all
    except (ValueError, IndexError):
        return 0


def _stat(pid: int) -> list[bytes]:
    """Return what the system says of a process, from its state on (see proc(5)), or [] if it says nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _lock_owners(lock: str | os.PathLike[str]) -> set[int]:
    """Return which processes have a lock on a file, as Linux lists them; an empty set if it does not say."""
    with contextlib.suppress(OSError, ValueError):
        inode = str(os.stat(lock, follow_symlinks=False).st_ino)
        lines = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        # not the device: a lock in a container's overlay is listed with that of the layer below
        return {int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] == inode}
    return set()


def _uptime_s() -> float:
    """Return the seconds since the boot: no clock that is set changes them, and all processes agree."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _program(pid: int) -> str:
    """Return what a process runs, such as "python worker.py", or "". Its further arguments may hold secrets."""
    try:
        words = [word.decode(errors="replace") for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    except OSError:
        return ""
    program = os.path.basename(words[0])
    if not program.startswith(("python", "pypy")):
        return program
    for before, word in itertools.pairwise(words):
        if before == "-m":
            return f"{program} -m {word}"
        if word and not word.startswith("-") and before not in ("-W", "-X"):
            return program if before == "-c" else f"{program} {os.path.basename(word)}"
    return program


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _read(lock: str | os.PathLike[str]) -> bytes:
    try:
        handle = os.open(lock, _READ)
        try:
            return os.pread(handle, _NOTE_BYTES, NOTE_AT)
        finally:
            os.close(handle)
    except OSError:
        return b""


def _write(lock: str | os.PathLike[str] | int, note: bytes, *, instead_of: bytes | None = None) -> None:
    try:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = lock if isinstance(lock, int) else os.open(lock, flags)
        try:
            if instead_of is None or os.pread(handle, _NOTE_BYTES, NOTE_AT) == instead_of:
                os.pwrite(handle, note, NOTE_AT)
        finally:
            if handle != lock:
                os.close(handle)
    except OSError as error:
        logger.debug("leave a note in %s: %s", lock, error)

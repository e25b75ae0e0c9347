"""When the holder of a lock file last got on: it tells the kernel, and other processes ask the kernel.

No file is written. A watcher gets on with each pass, and a merge when it begins. They lock a range of bytes of their
lock file, far beyond the file's end. Where the range begins says when that was, and how long it is says how often a
watcher checks all shards. The kernel keeps such a lock in memory until the process ends, however it ends. It is an open
file description lock (fcntl(2)): the lock that `filelock` takes (flock) is independent of it, it survives the closing
of other descriptors of the file, and any process that may read the file can ask for it, also one of another user or of
another container.

Where the system has no such locks (macOS), nothing of that is known, and a held lock file is all there is to go by.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import struct
import sys
import time
import weakref
from pathlib import Path
from typing import Final

import attrs

logger = logging.getLogger("edgeshard.locks")

# on Linux only: elsewhere the struct below has another layout
_SET: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
_GET: Final[int | None] = getattr(fcntl, "F_OFD_GETLK", None) if sys.platform == "linux" else None

#: struct flock: type, whence, start, length and pid. The padding is in case the struct ends with some.
_FLOCK: Final = struct.Struct("hhqqi4x")

#: Times are counted in hundredths of a second; these many bits of a range's start are for its length.
_UNITS_A_SECOND: Final = 100
_LENGTH_BITS: Final = 24


@attrs.frozen
class Beat:
    """What the holder of a lock file told last.

    Attributes:
        age_s: how long ago that was, in seconds during which the machine did not sleep. A watcher tells it when it
            begins and after each pass, a merge when it begins.
        rescan_s: how often a watcher checks all shards, in seconds; at most 46 hours.
    """

    age_s: float
    rescan_s: float


class Pulse:
    """Tells other processes that the holder of a lock file is at work, until `end` is called or this process ends.

    A failure is only logged: then others know no more than that the lock file is held.

    Args:
        lock: the lock file, which this process holds.
        rescan_s: how often a watcher checks all shards, in seconds; 0 of a merge.
    """

    def __init__(self, lock: Path, rescan_s: float) -> None:
        self._lock = lock
        self._length = min(max(1, math.ceil(rescan_s * _UNITS_A_SECOND)), (1 << _LENGTH_BITS) - 1)
        self._start = 0
        self._handle: int | None = None
        if _SET is not None:
            try:
                self._handle = os.open(lock, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                logger.debug("lock a range of %s: %s", lock, error)
        _pulses.add(self)
        self.beat()

    def beat(self) -> None:
        """Tell that a pass has just ended (takes 4 µs)."""
        start = int(time.monotonic() * _UNITS_A_SECOND) << _LENGTH_BITS
        if self._handle is None or _SET is None or start == self._start:
            return
        try:
            # the new range first: whoever asks in between finds the old one
            fcntl.fcntl(self._handle, _SET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, self._length, 0))
            fcntl.fcntl(self._handle, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, start, 0))
            self._start = start
        except OSError as error:
            logger.debug("lock a range of %s: %s", self._lock, error)
            self.end()

    def end(self) -> None:
        """Let go of the range. A child that was forked only closes its copy, and the range stays the parent's."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def last_beat(lock: Path) -> Beat | None:
    """Return what the holder of a lock file told last, or None if that is not known."""
    if _GET is None:
        return None
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = fcntl.fcntl(handle, _GET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(handle)
    except OSError as error:
        logger.debug("ask for a range of %s: %s", lock, error)
        return None
    kind, _, start, length, _ = _FLOCK.unpack(found)
    if kind == fcntl.F_UNLCK:
        return None
    ended_s = (start >> _LENGTH_BITS) / _UNITS_A_SECOND
    return Beat(max(0.0, time.monotonic() - ended_s), length / _UNITS_A_SECOND)


# -- forks ------------------------------------------------------------------------------------------------------------

_pulses: weakref.WeakSet[Pulse] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Close the copies of the parent's descriptors, or the ranges would outlive a parent that is killed."""
    for pulse in _pulses:
        pulse.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

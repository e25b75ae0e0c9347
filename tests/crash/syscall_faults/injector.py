"""Let system calls fail on purpose: those of SQLite, and those that edgeshard and filelock make through ``os`` and `open`.

Statements can fail as well, each before it does anything.

SQLite's own unix VFS stays in place, and the calls below it are replaced: with ``xSetSystemCall``, which SQLite offers
for this, and for fdatasync, which that does not cover, in apsw's table of imported functions. So each error takes the
same path as a real one, including the shared memory and its locks. (A VFS written in Python is no substitute: an
error that SQLite passes over, such as one of the checkpoint after a commit, leaves a Python exception behind, which
apsw then raises from a statement that was successful.)

It works for one process with one thread, on Linux. The real calls cannot be restored within the process.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import os
import re
from collections.abc import Callable
from typing import Any

import apsw
import attrs

#: The calls of SQLite's that are replaced: how many arguments each has, and whether it returns a long (or a pointer).
_SYSTEM_CALLS = {
    "open": (3, False),
    "close": (1, False),
    "access": (2, False),
    "stat": (2, False),
    "lstat": (2, False),
    "fstat": (2, False),
    "ftruncate": (2, False),
    "fcntl": (3, False),
    "pread64": (4, True),
    "pwrite64": (4, True),
    "fchmod": (2, False),
    "unlink": (1, False),
    "mmap": (6, True),
}
#: The replaced functions of Python's ``os``.
_OS_CALLS = (
    *("open", "fsync", "link", "unlink", "rename", "mkdir", "stat", "lstat", "scandir"),
    *("listdir", "statvfs", "pread", "pwrite", "ftruncate", "posix_fallocate"),
)
#: `open`, and writing to what it returns.
_OPEN, _WRITE = "io.open", "io.write"

#: A statement that is about to be executed.
_STATEMENT = "sql"

#: What a fault of each kind returns from each call, as errno; a short call does a part of its work instead.
KINDS: dict[str, dict[str, int]] = {
    "error": {
        **dict.fromkeys([*_SYSTEM_CALLS, "fdatasync", "os.flock"], errno.EIO),
        **{f"os.{name}": errno.EIO for name in _OS_CALLS},
        **dict.fromkeys((_OPEN, _WRITE), errno.EIO),
    },
    "full": dict.fromkeys(
        (
            *("open", "pwrite64", "ftruncate", "fdatasync", "os.open", "os.fsync", "os.link", "os.rename", "os.mkdir"),
            *("os.pwrite", "os.posix_fallocate", _WRITE),
        ),
        errno.ENOSPC,
    ),
    "exhausted": {
        "open": errno.EMFILE,
        "mmap": errno.ENOMEM,
        "fcntl": errno.ENOLCK,
        "os.open": errno.ENFILE,
        _OPEN: errno.EMFILE,
    },
    "denied": dict.fromkeys(("open", "unlink", "os.open", "os.unlink", "os.link", "os.mkdir", _OPEN), errno.EACCES),
    "interrupted": dict.fromkeys(("open", "pread64", "pwrite64", "ftruncate", "fcntl"), errno.EINTR),
    "short": dict.fromkeys(("pread64", "pwrite64"), 0),
    "statement": {_STATEMENT: errno.ENOMEM},
}
#: These happen only once: SQLite would restart an interrupted call for ever.
ONCE_ONLY = frozenset({"interrupted"})


@attrs.frozen
class Fault:
    """Selects the call that fails.

    Attributes:
        kind: one of `KINDS`.
        at: the number of the call, from 0; if that call cannot fail in this way, the next one that can.
        sticky: whether all such calls fail from there on.
    """

    kind: str
    at: int
    sticky: bool


class Injector:
    """Counts the calls while it is armed, and makes one of them fail, or all from one on.

    Attributes:
        trace: the calls since it was armed, each with the ending of the file's name if that is known.
        hits: how many of them failed.
    """

    def __init__(self) -> None:
        self.trace: list[tuple[str, str]] = []
        self.hits = 0
        self._armed = False
        self._fault: Fault | None = None
        self._names: dict[int, str] = {}
        self._keep: list[Any] = []
        base = apsw.VFS("edgeshard-injection", base="unix")
        for name, (arity, is_long) in _SYSTEM_CALLS.items():
            base.xSetSystemCall(name, self._hook(name, base.xGetSystemCall(name) or 0, arity, is_long))
        self._keep.append(base)
        _replace_import("fdatasync", lambda address: self._hook("fdatasync", address, 1, False))
        _replace_import("nanosleep", lambda address: self._hook("nanosleep", address, 2, False))
        for name in _OS_CALLS:
            self._replace(os, name)
        self._replace(fcntl, "flock")
        self._replace_open()
        apsw.connection_hooks.append(self._watch_statements)

    def arm(self, fault: Fault | None) -> None:
        """Start counting, and let the fault happen."""
        self.trace, self.hits, self._fault, self._armed = [], 0, fault, True

    def heal(self) -> None:
        """Let no call fail from here on."""
        self._armed = False

    def _strike(self, call: str, name: str) -> int | None:
        """Return the errno with which this call fails; 0: it does a part of its work; None: all of it."""
        if not self._armed:
            return None
        number = len(self.trace)
        self.trace.append((call, name))
        fault = self._fault
        if fault is None or number < fault.at or (self.hits and not fault.sticky) or call not in KINDS[fault.kind]:
            return None
        self.hits += 1
        return KINDS[fault.kind][call]

    def _hook(self, call: str, address: int, arity: int, is_long: bool) -> int:
        result = ctypes.c_long if is_long else ctypes.c_int
        kind = ctypes.CFUNCTYPE(result, *[ctypes.c_long] * arity, use_errno=True)
        real = kind(address)

        def hooked(*arguments: int) -> int:
            if call == "nanosleep":  # SQLite would wait up to ten seconds for a lock to come free
                return 0
            if not self._armed and call != "open":  # most calls: those of what is prepared, and of the checks
                return int(real(*arguments))
            struck = self._strike(call, self._name(call, arguments[0]))
            if struck == 0:
                return int(real(*arguments[:2], max(1, arguments[2] // 2), *arguments[3:]))
            if struck is not None and call != "close":
                ctypes.set_errno(struck)
                return -1
            done = int(real(*arguments))
            if struck is not None:  # it is closed all the same
                ctypes.set_errno(struck)
                return -1
            if call == "open" and done >= 0:
                self._names[done] = _ending(ctypes.string_at(arguments[0]).decode(errors="replace"))
            return done

        callback = kind(hooked)
        self._keep += [real, callback]
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _name(self, call: str, first: int) -> str:
        if not self._armed:
            return ""
        if call in ("open", "access", "stat", "lstat", "unlink"):
            return _ending(ctypes.string_at(first).decode(errors="replace"))
        return "" if call == "mmap" else self._names.get(first & 0xFFFFFFFF, "")

    def _watch_statements(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._trace_statement

    def _trace_statement(self, _: apsw.Cursor, sql: str, __: object) -> bool:
        """Let a statement fail as each can for lack of memory, before it did anything."""
        if self._strike(_STATEMENT, " ".join(sql.split()[:3])):
            raise apsw.NoMemError("out of memory")
        return True

    def _replace(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def replaced(*arguments: Any, **options: Any) -> Any:
            if name == "flock" and arguments[1] & fcntl.LOCK_UN:  # no kernel refuses this
                return real(*arguments, **options)
            path = arguments[0] if arguments and isinstance(arguments[0], (str, os.PathLike)) else ""
            ending = _ending(os.fspath(path)) or self._names.get(arguments[0] if arguments else -1, "")
            struck = self._strike(f"os.{name}", ending)
            if struck:
                raise OSError(struck, os.strerror(struck), path or None)
            done = real(*arguments, **options)
            if name == "open":
                self._names[done] = ending
            return done

        setattr(module, name, replaced)

    def _replace_open(self) -> None:
        real = open

        def replaced(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            ending = self._names.get(file, "") if isinstance(file, int) else _ending(os.fspath(file))
            struck = None if isinstance(file, int) else self._strike(_OPEN, ending)
            if struck:
                raise OSError(struck, os.strerror(struck), file)
            opened = real(file, mode, *arguments, **options)
            return opened if mode.startswith("r") else _Written(opened, lambda: self._strike(_WRITE, ending))

        # what `pathlib` calls, and everybody else
        setattr(io, "open", replaced)  # noqa: B010
        setattr(builtins, "open", replaced)  # noqa: B010


class _Written:
    """A file to which writing may fail."""

    def __init__(self, file: Any, strike: Callable[[], int | None]) -> None:
        self._file = file
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        """Write, or fail."""
        struck = self._strike()
        if struck:
            raise OSError(struck, os.strerror(struck))
        return int(self._file.write(data))


def _ending(path: str) -> str:
    """Return the kind of a file: its name without what is specific to it."""
    return re.sub(r"\.edgeshard-[0-9a-f]{8}\.new", ".new", os.path.basename(path))


def _replace_import(name: str, make: Callable[[int], int]) -> None:
    """Replace a function of the C library in apsw's module.

    Raises:
        OSError: this system has no such module, or the module no such reference.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
    replacement = make(address)
    found = 0
    for start, end in _data_of(str(apsw.__file__)):
        words = (ctypes.c_uint64 * ((end - start) // 8)).from_address(start)
        for index in [index for index, word in enumerate(words) if word == address]:
            if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 3) != 0:
                raise OSError(ctypes.get_errno(), "cannot make apsw's imports writable")
            words[index] = replacement
            found += 1
    if not found:
        raise OSError(errno.ENOENT, f"apsw's module does not refer to {name}")


def _data_of(library: str) -> list[tuple[int, int]]:
    """Return the address ranges of a loaded library's data."""
    spans = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, rights, *rest = line.split()
            if rest[-1] == library and "r" in rights and "x" not in rights:
                start, end = (int(part, 16) for part in span.split("-"))
                spans.append((start, end))
    return spans

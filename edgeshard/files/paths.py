"""The names of a store's files and folders.

    ROOT/shards/NAME.db       one agent's shard, with SQLite's -wal and -shm files next to it
    ROOT/shards/NAME.lock     locked while the agent has its shard open
    ROOT/master.db            the merged rows
    ROOT/merge.lock           locked while a merger works
    ROOT/watch.lock           locked while a merger watches the store
    ROOT/budget.json          the disk budget, if the store has one
    ROOT/quotas               what open shards may grow to within the budget
    ROOT/reserve              space set aside for the merger within the budget
    ROOT/removed-shards.db    which rows the shards that were removed had brought
    ROOT/master-damaged.json  what a check found in the master, if it is damaged
    ROOT/restored-master.db*  a snapshot that a restore is making ready to become the master
    ROOT/replaced-master-*.db the masters that restores replaced
    ROOT/erased.json          the addresses of the rows that were erased, if there are any
    ROOT/refresh.sql          what a user wants to be run after rows came or went

Nothing in this package opens a database that may be in use: if a process opens and closes a file by other means than
SQLite while SQLite has it open, the process loses its POSIX locks on the file
(https://sqlite.org/howtocorrupt.html, 2.2). So `stat` only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from edgeshard.errors import ConfigurationError, quoted

AGENT_NAME_MAX = 200

#: The endings of a shard's file and of its lock file.
SHARD: Final = ".db"
LOCK: Final = ".lock"

#: The endings of the files that SQLite keeps next to a database: its WAL, the shared index of the WAL, and its journal.
WAL: Final = "-wal"
SHM: Final = "-shm"
JOURNAL: Final = "-journal"
SIDE_FILES: Final = (WAL, SHM, JOURNAL)

#: The ending of a file that is not complete yet.
UNFINISHED: Final = ".new"

_UNFINISHED_NAME: Final = r"\.edgeshard-[0-9a-f]{8}\.new"

#: What a killed `sqlite.create` of a shard leaves behind; the group is the stem of the shard.
UNFINISHED_SHARD: Final = re.compile(rf"(.+)\.db{_UNFINISHED_NAME}(?:-journal|-wal|-shm)?")

_REPLACED_MASTER = re.compile(r"replaced-master-[0-9-]+-[0-9a-f]{8}\.db(?:-wal|-journal)?")

#: Every name that edgeshard uses in a store's folder, but for upper and lower case.
_OWN_NAME = re.compile(
    r"shards|merge\.lock|watch\.lock|quotas|reserve|refresh\.sql|salvage-[0-9a-f]{16}"
    rf"|(?:budget|master-damaged|erased)\.json(?:{_UNFINISHED_NAME})?"
    r"|(?:master|restored-master|removed-shards|removed-shards-damaged-[0-9a-f]{8}|replaced-master-[0-9-]+-[0-9a-f]{8})"
    rf"\.db(?:{_UNFINISHED_NAME})?(?:-wal|-shm|-journal)?",
    re.IGNORECASE,
)

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

# names of devices on Windows, to which a USB stick may take a store
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")


def checked(given: object, action: str, name: str) -> str:
    """Return a path that a caller gave.

    Args:
        given: what should be a str or a Path.
        action: what the caller does, for the message.
        name: how the message calls the argument.

    Raises:
        ConfigurationError: it is something else, or contains what no path does: U+0000, or half of a surrogate pair.
    """
    try:
        path = os.fspath(given)  # type: ignore[call-overload]
        is_possible = isinstance(path, str) and b"\0" not in os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        is_possible = False
    if not is_possible:
        raise ConfigurationError(action, "", f"{name} must be a str or a Path, got {quoted(given, 200)}")
    return str(path)


def master(root: Path) -> Path:
    """Return the path of a store's master."""
    return root / "master.db"


def shards(root: Path) -> Path:
    """Return the folder of a store's shards."""
    return root / "shards"


def merge_lock(root: Path) -> Path:
    """Return the lock file that a merger holds while it works."""
    return root / "merge.lock"


def watch_lock(root: Path) -> Path:
    """Return the lock file that a merger holds while it watches the store."""
    return root / "watch.lock"


def budget(root: Path) -> Path:
    """Return the file that records a store's disk budget."""
    return root / "budget.json"


def removed_shards(root: Path) -> Path:
    """Return the notes of what the shards that were removed had brought."""
    return root / "removed-shards.db"


def damage_note(root: Path) -> Path:
    """Return the note of a check that found the master damaged."""
    return root / "master-damaged.json"


def restored(root: Path) -> Path:
    """Return the name under which a snapshot is made ready to become the master."""
    return root / "restored-master.db"


def replaced_master(root: Path, when: str, token: str) -> Path:
    """Return the name of a master in whose place a snapshot was restored.

    Args:
        root: the store's folder.
        when: the time, as digits and hyphens.
        token: eight random hexadecimal digits.
    """
    return root / f"replaced-master-{when}-{token}.db"


def is_replaced_master(name: str) -> bool:
    """Return whether a file name is one that `replaced_master` returns, or that of a file next to it."""
    return _REPLACED_MASTER.fullmatch(name) is not None


def is_own_name(name: str) -> bool:
    """Return whether edgeshard uses this name in a store's folder, so that nothing of a user's may have it."""
    return _OWN_NAME.fullmatch(name) is not None


def erased(root: Path) -> Path:
    """Return the file that lists the rows that were erased."""
    return root / "erased.json"


def refresh(root: Path) -> Path:
    """Return the file with the user's statements that are run on the master after rows came or went."""
    return root / "refresh.sql"


def quotas(root: Path) -> Path:
    """Return the file that records what open shards may grow to within the disk budget."""
    return root / "quotas"


def reserve(root: Path) -> Path:
    """Return the file that sets space aside for the merger within the disk budget."""
    return root / "reserve"


def shard_stem(agent: str) -> str:
    """Return the file name of an agent's shard, without its ending.

    Short names of lower-case letters, digits, - and _ are used as they are. Any other name becomes a readable part, a ~
    (which no plain name contains) and a digest of the exact name. So no two agents share a file, even on a file system
    that folds case or normalises Unicode.

    Raises:
        ConfigurationError: the name is empty, longer than 200 characters, contains U+0000, or cannot be encoded in
            UTF-8.
    """
    if not isinstance(agent, str):
        raise ConfigurationError(
            "open shard", "", f'an agent\'s name is a str, as in store.shard("door-3"), got {quoted(agent, 100)}'
        )
    if not 1 <= len(agent) <= AGENT_NAME_MAX:
        raise ConfigurationError(
            "open shard", "", f"an agent's name has 1 to {AGENT_NAME_MAX} characters, not {len(agent)}"
        )
    if "\0" in agent:
        cause = f"the agent's name {agent!r} contains U+0000, and PostgreSQL could store none of its rows; leave it out"
        raise ConfigurationError("open shard", "", cause)
    if _PLAIN.fullmatch(agent) and not _DEVICES.fullmatch(agent):
        return agent
    try:
        import hashlib  # it loads OpenSSL, which most names of agents do not need

        digest = hashlib.sha256(agent.encode()).hexdigest()[:32]
    except UnicodeEncodeError as error:
        raise ConfigurationError("open shard", "", f"the agent's name {agent!r} is not valid Unicode text") from error
    readable = re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-")[:32]
    return f"{readable}~{digest}"


def shard(folder: Path, stem: str) -> Path:
    """Return the path of a shard in a folder of shards."""
    return folder / f"{stem}{SHARD}"


def shard_lock(folder: Path, stem: str) -> Path:
    """Return the path of a shard's lock file in a folder of shards."""
    return folder / f"{stem}{LOCK}"


def stem_of(shard_name: str) -> str:
    """Return the name or path of a shard's file without its ending."""
    return shard_name.removesuffix(SHARD)


def lock_path(shard_path: str) -> str:
    """Return the path of a shard's lock file."""
    return stem_of(shard_path) + LOCK


def wal(path: str | os.PathLike[str]) -> str:
    """Return the path of a database's WAL."""
    return f"{os.fspath(path)}{WAL}"


def side_files(path: str | os.PathLike[str]) -> list[str]:
    """Return the paths of the files that SQLite may have next to a database."""
    return [f"{os.fspath(path)}{suffix}" for suffix in SIDE_FILES]


def unfinished(path: str, token: str) -> str:
    """Return the name under which a file is built before it is published as `path`.

    A killed process leaves the file, and another removes it by its name. So nobody else may use such a name.

    Args:
        path: the file.
        token: eight random hexadecimal digits, so that two processes may build the same file.
    """
    return f"{path}.edgeshard-{token}{UNFINISHED}"


def is_unfinished(name: str, of: str) -> bool:
    """Return whether the file name `name` is one that `unfinished` returns for the file name `of`."""
    return re.fullmatch(re.escape(of) + _UNFINISHED_NAME, name) is not None

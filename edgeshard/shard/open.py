"""Open an agent's shard for writing.

1. Open the references, if any are given. If one cannot be opened, no shard is made.
2. Take the shard's lock file, so that no other handle and no merger that removes shards interferes.
3. If the shard has a file, open it, and check that it belongs to this agent. Otherwise make a draft, of which the first
   transaction makes the file (see `edgeshard.shard.draft`). What would keep it from being made fails here: a folder
   that cannot be written to, a full disk, a budget without space, a left-over WAL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from edgeshard import format, sqlite
from edgeshard.budget.policy import Budget
from edgeshard.errors import (
    ConfigurationError,
    DamagedError,
    FormatError,
    ShardForkedError,
    ShardInUseError,
    quoted,
)
from edgeshard.files import fingerprint, folders, lock_holder, locks, paths, store_folder
from edgeshard.master import identity, write_stats
from edgeshard.options import DURABILITIES, LOCK_WAIT_S, TRANSACTION_WAIT_S, Durability, References
from edgeshard.records import fallbacks
from edgeshard.records.fallbacks import Fallbacks
from edgeshard.shard import draft
from edgeshard.shard.draft import Draft
from edgeshard.shard.health import ShardLock
from edgeshard.shard.lookup import Lookups
from edgeshard.shard.quota import Quota
from edgeshard.shard.shard import Shard
from edgeshard.shard.write_profile import WriteProfile
from edgeshard.sqlite import Connection

#: The longest time to wait that can be given, in seconds: about ten years, and well within what a lock can count.
_WAIT_MAX_S: Final = 3e8

_ADVICE: Final = (
    'With several workers, give each a shard of its own, as in store.shard(f"worker-{os.getpid()}"): see "Your 20 '
    'workers" in the README. Threads of one process share one handle. Otherwise close the other one, or wait until it '
    "is closed: store.shard(agent, wait=seconds)"
)


def open_shard(
    root: Path,
    agent: str,
    durability: Durability,
    profile: WriteProfile,
    references: References | None = None,
    budget: Budget | None = None,
    replacing: Fallbacks = fallbacks.REFUSE,
    wait_s: float = LOCK_WAIT_S,
    transaction_wait_s: float = TRANSACTION_WAIT_S,
) -> Shard:
    """Open an agent's shard.

    Args:
        root: the store's folder.
        agent: the agent's name.
        durability: what a committed row survives.
        profile: the store's write profile.
        references: what to attach for look-ups; None if nothing.
        budget: the store's disk budget; None if it has none.
        replacing: what is stored instead of values that cannot be stored exactly.
        wait_s: how long to wait for another handle of the shard, in seconds.
        transaction_wait_s: how long a use of the shard waits for a transaction of another thread, in seconds.

    Raises:
        ConfigurationError: the agent's name, the durability, a time or a reference is invalid.
        ShardInUseError: another handle has it open.
        ShardForkedError: this process inherited an open connection to it that it cannot close.
        DiskBudgetError: the budget leaves no space for a new shard.
        AccessError, StorageIOError, DamagedError, FormatError: the file cannot be opened as this agent's shard, or a
            reference cannot be opened.
    """
    for name, seconds in (("wait", wait_s), ("transaction_wait", transaction_wait_s)):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= _WAIT_MAX_S:
            cause = f"{name} must be a number of seconds from 0 to {_WAIT_MAX_S:.0f}, got {quoted(seconds)}"
            raise ConfigurationError("open shard in", root, cause)
    with contextlib.ExitStack() as opened:
        lookups = None if references is None else opened.enter_context(contextlib.closing(Lookups(references)))
        if not isinstance(durability, str) or durability not in DURABILITIES:
            cause = f"durability must be 'process' or 'power', got {quoted(durability)}"
            raise ConfigurationError("open shard in", root, cause)
        stem = paths.shard_stem(agent)
        folder = store_folder.resolve_shards(root)  # SQLite follows no link in it
        folders.make_folder(folder)
        path, lock_path = paths.shard(folder, stem), paths.shard_lock(folder, stem)
        with sqlite.translate_errors("open shard", str(path)):
            had_lock = fingerprint.exists(lock_path)
        held = locks.lock(lock_path, wait_s)
        if held is None:
            raise _in_use_error(path, agent)
        lock = ShardLock(held)
        opened.callback(lock.release)
        is_there = draft.exists(str(path))
        quota = None if budget is None else opened.enter_context(contextlib.closing(Quota(root, budget, path)))
        with _with_rescue_advice(str(path)), sqlite.translate_errors("open shard", str(path)):
            if is_there:
                if durability == "power":  # an earlier handle at "process" did not sync all names
                    folders.sync_path(folder)
                connection = opened.enter_context(contextlib.closing(_connect(str(path), durability, agent)))
                new = None
            else:
                new = _make_draft(path, agent, profile, is_limited=budget is not None, was_removed=had_lock)
                opened.callback(new.discard)
                connection = new.connection
            meter = write_stats.WriterMeter(lock_path)
            shard = Shard(
                path=path,
                master_path=paths.master(root),
                agent=agent,
                durability=durability,
                connection=connection,
                lock=lock,
                meter=meter,
                connect=partial(_connect, str(path), durability),
                draft=new,
                lookups=lookups,
                quota=quota,
                replacing=replacing,
                transaction_wait_s=transaction_wait_s,
            )
        opened.pop_all()  # the shard closes them
        return shard


def _in_use_error(path: Path, agent: str) -> ShardInUseError:
    holder = lock_holder.find_holder(paths.lock_path(str(path)))
    if holder is None:
        cause = f"agent {agent!r} is open already, in this process or another. {_ADVICE}"
        return ShardInUseError("open shard", path, cause)
    who = holder.describe()
    if holder.role == "merge":
        cause = f"a merge is removing what agent {agent!r} left when it ended ({who}); open it again"
    elif holder.role == "salvage":
        cause = f"agent {agent!r} is being salvaged by {who}; open it again when that has ended"
    else:
        cause = f"agent {agent!r} is open in {who}. {_ADVICE}"
    return ShardInUseError("open shard", path, cause, holder.pid, holder.since)


@contextlib.contextmanager
def _with_rescue_advice(path: str) -> Iterator[None]:
    """Add the next step to the error of a shard that is damaged."""
    try:
        yield
    except DamagedError as error:
        if error.path != path:
            raise
        raise DamagedError(error.action, path, f"{error.cause}. {draft.RESCUE}") from error.__cause__


def _make_draft(path: Path, agent: str, profile: WriteProfile, *, is_limited: bool, was_removed: bool) -> Draft:
    with sqlite.translate_errors("make shard", str(path)):
        if was_removed:
            draft.remove_leftovers(path)
            # somebody removed the shard of an agent, perhaps just now: if a power cut undid that for its WAL, SQLite
            # would copy old pages into the new shard
            folders.sync_folder(path.parent)
        return Draft(path, agent, profile.page_bytes, is_limited=is_limited)


def _connect(path: str, durability: Durability, agent: str | None = None) -> Connection:
    """Open a shard's file for its writer, and check that it belongs to the agent, unless this process has just made it.

    Raises:
        AccessError, StorageIOError, DamagedError, FormatError, ShardForkedError: see `open_shard`.
    """
    with sqlite.translate_errors("open shard", path):
        try:
            connection = sqlite.connect(path, writable=True)
        except sqlite.InheritedError as error:
            raise ShardForkedError("open shard", path, str(error)) from error
        try:
            if agent is not None:
                _check_owner(connection, path, agent)
            sqlite.set_synchronous(connection, DURABILITIES[durability])
            sqlite.disable_checkpoint_on_close(connection)  # the handle decides
            if agent is not None and durability == "power" and fingerprint.size(paths.wal(path)):
                # a killed handle left it, perhaps after an fsync that failed: see `MasterHandle.open`
                sqlite.shrink_wal(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_owner(connection: Connection, path: str, agent: str) -> None:
    sqlite.check_identity(connection, "main", format.IDENTITY, path)
    role, owner = identity.role_and_agent(connection)
    if role != format.SHARD:
        cause = "it is an edgeshard database, but not a shard; move it out of the folder of shards"
        raise FormatError("open shard", path, cause)
    if owner != agent:
        cause = f"it belongs to agent {owner!r}, not to {agent!r}; move it back to where it came from"
        raise FormatError("open shard", path, cause)

"""The files of a store: what they are called, who may have them open, and what their errors mean.

    ROOT/shards/NAME.db       one agent's shard (with SQLite's -wal and -shm beside it)
    ROOT/shards/NAME.lock     held while a handle has that shard open
    ROOT/master.db            the merged rows
    ROOT/merge.lock           held while a merger works
    ROOT/watch.lock           held as long as a merger watches the store

Nothing here opens a database. A file that SQLite has open in this process must never be opened and closed by other
means: that drops the process's POSIX locks on it (https://sqlite.org/howtocorrupt.html, 2.2). So: stat only.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from edgeshard.errors import ConfigurationError

AGENT_NAME_MAX = 200

#: What is left of a shard whose making was killed (see database.create), with the stem of the shard.
HALF_MADE = re.compile(r"(.+)\.db\.[0-9a-f]{8}\.new(?:-journal|-wal|-shm)?")

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

# names that Windows gives to devices: a store may be carried there on a stick
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")


def shard_stem(agent: str) -> str:
    """The file name, without its ending, of an agent's shard.

    Short names of lower-case letters, digits, - and _ are used as they are. All others become a readable part, a ~
    that no plain name has, and a digest of the exact name, so that no two agents share a file even on a file system
    that folds case or normalises Unicode.

    Raises:
        ConfigurationError: the name is empty, longer than 200 characters, or not text that UTF-8 can hold.
    """
    if not isinstance(agent, str):
        raise ConfigurationError("open shard", "", f"an agent's name is a str, not {type(agent).__name__}")
    if not 1 <= len(agent) <= AGENT_NAME_MAX:
        raise ConfigurationError(
            "open shard", "", f"an agent's name has 1 to {AGENT_NAME_MAX} characters, not {len(agent)}"
        )
    if _PLAIN.fullmatch(agent) and not _DEVICES.fullmatch(agent):
        return agent
    try:
        digest = hashlib.sha256(agent.encode()).hexdigest()[:32]
    except UnicodeEncodeError as error:
        raise ConfigurationError("open shard", "", f"the agent's name {agent!r} is not valid Unicode text") from error
    readable = re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-")[:32]
    return f"{readable}~{digest}"


def lock_path(shard_path: str) -> Path:
    """The lock file of a shard."""
    return Path(shard_path.removesuffix(".db") + ".lock")

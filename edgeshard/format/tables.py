"""The format's own tables: the DDL of each, and which of them a shard, a master and a bundle have."""

from __future__ import annotations

import re
from typing import Final

from edgeshard.format.constants import BUNDLE, MASTER, NOTES, SHARD

#: The names of the format's own tables and triggers begin with this. No record table can have such a name, and tools
#: such as Datasette hide tables whose names begin with an underscore.
PREFIX: Final = "_edgeshard_"

#: The columns that each record table begins with: in a shard, and in a master or a bundle.
SHARD_COLUMNS: Final = "_id INTEGER PRIMARY KEY"

MASTER_COLUMNS: Final = (
    "_id INTEGER PRIMARY KEY, _stream INTEGER NOT NULL REFERENCES _edgeshard_streams(stream_no), _seq INTEGER NOT NULL"
)

_SCRIPT = """
CREATE TABLE _edgeshard_database(
    database_id BLOB NOT NULL,              -- 16 random bytes that identify this database, e.g. in truncations
    role TEXT NOT NULL,                     -- shard | master | bundle | notes
    agent_id TEXT,                          -- the agent of a shard; otherwise NULL
    generation INTEGER NOT NULL DEFAULT 0,  -- + 1 with each merge and each prune; masters only
    next_id INTEGER NOT NULL DEFAULT 1,     -- the id of the next row; masters only
    notes_id BLOB,                          -- the id of the notes of removed shards; masters only
    notes_known INTEGER NOT NULL DEFAULT 0  -- all of those notes up to this one are known here; masters only
) STRICT;
CREATE TABLE _edgeshard_streams(
    stream_no INTEGER PRIMARY KEY,          -- this database's own number for the stream
    agent_id TEXT NOT NULL,
    stream_id BLOB NOT NULL UNIQUE,         -- 16 random bytes
    began_at TEXT NOT NULL,                 -- ISO 8601, UTC, by the writer's clock; '' if unknown
    last_seq INTEGER NOT NULL DEFAULT 0     -- the highest seq known to exist; masters only
) STRICT;
CREATE TABLE _edgeshard_ranges(
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_blocks(
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first_id INTEGER NOT NULL,              -- seq first + k has the id first_id + k
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_truncations(
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    database_id BLOB NOT NULL,              -- of the master that holds these rows
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_transactions(
    first_id INTEGER PRIMARY KEY,
    last_id INTEGER NOT NULL
) STRICT;
CREATE TABLE _edgeshard_columns(
    table_name TEXT NOT NULL,
    column_name TEXT NOT NULL,
    type TEXT NOT NULL,                     -- text | integer | datetime | ...
    position INTEGER NOT NULL,              -- 1, 2, 3 ... in the order in which they were declared; may have gaps
    PRIMARY KEY(table_name, column_name)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_indexes(
    table_name TEXT NOT NULL,
    columns TEXT NOT NULL,                  -- JSON list of column names; the index is built in masters only
    PRIMARY KEY(table_name, columns)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_keys(
    table_name TEXT PRIMARY KEY,            -- a keyed table: a master keeps the newest version of each key
    columns TEXT NOT NULL,                  -- JSON list of the names of the key's columns
    conflict TEXT NOT NULL,                 -- lww | first | max:column | min:column | keep-all
    has_history INTEGER NOT NULL DEFAULT 0, -- 1: superseded versions move to <table>_history
    last_timestamp INTEGER NOT NULL DEFAULT 0   -- the highest timestamp of its changes; masters only
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_renames(
    table_name TEXT NOT NULL,
    old_name TEXT NOT NULL,                 -- the column's name in older agents; lower case
    new_name TEXT NOT NULL,                 -- its name in newer ones
    UNIQUE(table_name, old_name, new_name)
) STRICT;
CREATE TABLE _edgeshard_priorities(
    table_name TEXT PRIMARY KEY,            -- in lower case
    priority INTEGER NOT NULL               -- a disk budget drops rows of the lowest priority first
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_pruned_ranges(
    is_own INTEGER NOT NULL,                -- 1: this very file's rows were pruned; 0: a merged database says so
    database_id BLOB NOT NULL,              -- of the database that pruned them
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,                   -- the rule that selected them
    pruned_at TEXT NOT NULL,                -- when the last of them was pruned, ISO 8601, UTC
    PRIMARY KEY(is_own, database_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_deleted_by_hand(
    stream_no INTEGER NOT NULL,             -- a trigger records here each row that another program deletes ...
    seq INTEGER NOT NULL,                   -- ... from a record table of a master; the next merge clears it
    PRIMARY KEY(stream_no, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_warnings(
    kind TEXT NOT NULL,                     -- trigger: a user's, on a record table | view: has the name of one of ours
    name TEXT NOT NULL,                     -- what the user made, of which the log has warned
    PRIMARY KEY(kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_erasures(
    number INTEGER PRIMARY KEY,             -- of the last erasure that was done here; see ROOT/erased.json
    done_at TEXT NOT NULL                   -- ISO 8601, UTC
) STRICT;
CREATE TABLE _edgeshard_written_off(
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,                 -- the loss of these rows was accepted: ...
    last INTEGER NOT NULL,                  -- ... they are missing, or were deleted by hand
    why TEXT NOT NULL,                      -- as the user who accepted it said
    accepted_at TEXT NOT NULL,              -- ISO 8601, UTC
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_superseded(
    stream_no INTEGER PRIMARY KEY REFERENCES _edgeshard_streams,
    rows INTEGER NOT NULL                   -- seqs in blocks whose row was superseded by a newer version
) STRICT;
CREATE TABLE _edgeshard_missing(
    stream_no INTEGER PRIMARY KEY REFERENCES _edgeshard_streams,
    rows INTEGER NOT NULL                   -- seqs known to exist and in no range; streams without any are not listed
) STRICT;
CREATE TABLE _edgeshard_retired(
    stream_id BLOB PRIMARY KEY,             -- a stream that is in no other table: this master held all rows of it, ...
    last_seq INTEGER NOT NULL,              -- ... which are 1 to this, and pruned them
    group_no INTEGER NOT NULL REFERENCES _edgeshard_retirements
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_retirements(
    group_no INTEGER PRIMARY KEY,           -- streams that retired about the same time; older groups have lower numbers
    database_id BLOB NOT NULL,              -- of the master that pruned their rows
    agent_id TEXT NOT NULL,                 -- that wrote all of them; '' if these are several
    shard TEXT NOT NULL,                    -- the file from which all their rows are proven; '' if there is none
    began_at INTEGER NOT NULL,              -- when the first of them began: seconds since 1970, UTC; -1 if unknown
    opened_at INTEGER NOT NULL,             -- when the first of them retired, the same
    retired_at INTEGER NOT NULL,            -- when the last of them retired, the same
    streams INTEGER NOT NULL,               -- how many they are
    rows TEXT NOT NULL                      -- JSON: how many rows they had, by the rule that selected them
) STRICT;
CREATE TABLE _edgeshard_tombstone_gc(
    table_name TEXT PRIMARY KEY,            -- a keyed table that had tombstones pruned
    last_timestamp INTEGER NOT NULL,        -- the newest timestamp among them
    grace_s REAL NOT NULL                   -- the grace period of the prune that deleted it, in seconds
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_arrivals(
    first_id INTEGER PRIMARY KEY,           -- the rows from this id up to the next entry's ...
    at INTEGER NOT NULL                     -- ... arrived at or after this trusted time: seconds since 1970, UTC
) STRICT;
CREATE TABLE _edgeshard_clock(
    clock_id INTEGER PRIMARY KEY,           -- 1: the only row; none until the first reading
    boot_id TEXT NOT NULL,                  -- the boot, or process, of the last reading
    boottime_s REAL NOT NULL,               -- seconds since that boot, by a clock that nobody can set
    wall_s REAL NOT NULL,                   -- the wall clock: seconds since 1970
    trusted_s REAL NOT NULL,                -- the trusted time, by which rows become too old: seconds since 1970
    witnessed_s REAL NOT NULL,              -- the witnessed time: seconds since the first reading
    based_at REAL NOT NULL,                 -- when the trusted time was taken from the wall clock, in witnessed time
    is_known INTEGER NOT NULL,              -- 1: the wall clock was set at least once
    boot_first_id INTEGER NOT NULL,         -- the first row that arrived in this boot
    unsure_from INTEGER NOT NULL,           -- the first row after a restart with a clock that was behind; 0: none
    corrections INTEGER NOT NULL,           -- how often the wall clock went ahead in this boot
    jumps TEXT NOT NULL,                    -- JSON list: [seconds, seen at, kept from, next id] of what is unconfirmed
    marks TEXT NOT NULL                     -- JSON list, an entry a day: witnessed time, next id
) STRICT;
CREATE TABLE _edgeshard_receipts(
    database_id BLOB NOT NULL,              -- of the peer, which said that it holds these rows durably
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    state INTEGER NOT NULL,                 -- 0: it holds them, 1: it pruned them, 2: it holds what was never here
    PRIMARY KEY(database_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_peers(
    database_id BLOB PRIMARY KEY,           -- a database that gave a receipt
    kind TEXT NOT NULL,                     -- edgeshard | postgresql
    received_at TEXT NOT NULL,              -- when its last receipt arrived, by our clock, ISO 8601, UTC
    issued_at TEXT NOT NULL,                -- when it issued that receipt, by its own clock
    generation INTEGER NOT NULL DEFAULT 0,  -- its generation at that time
    trusted_at TEXT,                        -- when it was confirmed, by our clock; NULL: it awaits confirmation
    revision INTEGER NOT NULL DEFAULT 0     -- + 1 with each transaction that changes its receipt
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_rejections(
    rejection_no INTEGER PRIMARY KEY,
    database_id BLOB NOT NULL,              -- of the PostgreSQL database that cannot store rows, for one reason:
    kind TEXT NOT NULL,                     -- nul | surrogate | not-utf8 | value | agent | stream | table | a SQLSTATE
    table_name TEXT NOT NULL,               -- the table of the rows that caused it, '' if it is not a table
    column_name TEXT NOT NULL,              -- the column, '' if it is not a single column
    constraint_name TEXT NOT NULL,          -- the constraint or index there, '' if it is none
    message TEXT NOT NULL,                  -- the reason in words, as said of the first row; '' once a row is erased
    dismissed_why TEXT NOT NULL,            -- why a user dismissed these rows; '' if nobody did
    dismissed_at TEXT                       -- when, ISO 8601, UTC; NULL if nobody did
) STRICT;
CREATE TABLE _edgeshard_rejected(
    database_id BLOB NOT NULL,              -- of the PostgreSQL database that these rows are not pushed to
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    seq INTEGER NOT NULL,                   -- the first of them that it cannot store; others are of its transaction
    rejection_no INTEGER NOT NULL REFERENCES _edgeshard_rejections,
    PRIMARY KEY(database_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_write_stats(
    day TEXT PRIMARY KEY,                   -- ISO 8601, UTC
    bytes INTEGER NOT NULL,                 -- written to shards and master, as far as it is counted
    rows INTEGER NOT NULL                   -- merged
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_shards(
    name TEXT PRIMARY KEY,                  -- of the file in the folder of shards
    state TEXT NOT NULL DEFAULT '',         -- its fingerprint when it was last found to have nothing new
    reason TEXT NOT NULL DEFAULT '',        -- why the last merge quarantined it, or ''
    is_denied INTEGER NOT NULL DEFAULT 0,   -- 1 if that is only that the merger had no permission
    merged_at TEXT                          -- when rows of it were last merged, ISO 8601, UTC
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_proven(
    shard TEXT NOT NULL,                    -- the name of a file in the folder of shards
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,                 -- these rows were copied from this very file, ...
    last INTEGER NOT NULL,                  -- ... or compared with it, value by value
    PRIMARY KEY(stream_no, shard, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_conflicts(
    conflict_id INTEGER PRIMARY KEY,
    shard TEXT NOT NULL,                    -- the name of a file in the folder of shards
    table_name TEXT NOT NULL,               -- a table of it whose rows do not fit the master's table
    cause TEXT NOT NULL,                    -- why, and what to do
    UNIQUE(shard, table_name, cause)
) STRICT;
CREATE TABLE _edgeshard_blocked(
    conflict_id INTEGER NOT NULL REFERENCES _edgeshard_conflicts,
    stream_no INTEGER NOT NULL REFERENCES _edgeshard_streams,
    first INTEGER NOT NULL,                 -- these rows of the shard were not copied for that reason, ...
    last INTEGER NOT NULL,                  -- ... or because their transaction has a row of that table
    PRIMARY KEY(conflict_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE _edgeshard_removed(
    note_no INTEGER PRIMARY KEY,            -- in the order in which they were noted
    stream_id BLOB NOT NULL,                -- a stream of a shard that was removed
    agent_id TEXT NOT NULL,
    last_seq INTEGER NOT NULL,              -- the master held seqs 1 to this
    database_id BLOB NOT NULL               -- of that master
) STRICT;
CREATE TABLE _edgeshard_checksum(
    sha256 BLOB NOT NULL                    -- of the whole file, with these 32 bytes taken as zeros
) STRICT
"""

#: The CREATE TABLE statement of each table, as SQLite keeps it in sqlite_schema; see `SHARD_TABLES` about the comments.
DDL: Final = {text.partition("(")[0].split()[-1]: text for text in _SCRIPT.strip().split(";\n")}

#: Names of tables, for code that must name them outside SQL.
INDEXES: Final = "_edgeshard_indexes"
KEYS: Final = "_edgeshard_keys"
RENAMES: Final = "_edgeshard_renames"
PRIORITIES: Final = "_edgeshard_priorities"
PRUNED_RANGES: Final = "_edgeshard_pruned_ranges"
SUPERSEDED: Final = "_edgeshard_superseded"
RETIRED: Final = "_edgeshard_retired"
RETIREMENTS: Final = "_edgeshard_retirements"
CHECKSUM_TABLE: Final = "_edgeshard_checksum"
REMOVED: Final = "_edgeshard_removed"

#: The tables that every database with rows has, whatever its role.
COMMON_TABLES: Final = (
    "_edgeshard_database",
    "_edgeshard_streams",
    "_edgeshard_truncations",
    "_edgeshard_transactions",
    "_edgeshard_columns",
)

#: The tables that a shard may lack: it gets each once a class of its agent declares an index, a key, a rename or a
#: priority.
OPTIONAL_SHARD_TABLES: Final = (INDEXES, KEYS, RENAMES, PRIORITIES)

#: The tables that a database of each role always has.
REQUIRED_TABLES: Final = {
    SHARD: COMMON_TABLES,
    MASTER: tuple(name for name in DDL if name not in (CHECKSUM_TABLE, REMOVED)),
    BUNDLE: (
        *COMMON_TABLES,
        "_edgeshard_ranges",
        "_edgeshard_blocks",
        INDEXES,
        KEYS,
        RENAMES,
        PRIORITIES,
        PRUNED_RANGES,
        SUPERSEDED,
        RETIRED,
        RETIREMENTS,
        CHECKSUM_TABLE,
    ),
    NOTES: ("_edgeshard_database", REMOVED),
}


def _script(role: str) -> str:
    return "".join(f"{DDL[name]};\n" for name in REQUIRED_TABLES[role])


#: Scripts that make these tables in an empty database.
#: The one for a shard leaves out the comments: whoever opens a database parses them, and there are many shards.
SHARD_TABLES: Final = re.sub(" *--.*", "", _script(SHARD))
MASTER_TABLES: Final = _script(MASTER)
BUNDLE_TABLES: Final = _script(BUNDLE)
NOTES_TABLES: Final = _script(NOTES)

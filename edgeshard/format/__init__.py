"""The format: what a database of ours looks like. Shards, masters and bundles are all of it.

Rows and their addresses
    A *stream* is one writer's one lifetime: each opening of a shard for writing begins a new one, with a random
    128-bit id, at its first write. Its rows carry *seqs* 1, 2, 3 ... across all tables. (stream, seq) is a row's
    address: it never changes, wherever the row is copied.

Where a row is kept
    Every record table has ``_id INTEGER PRIMARY KEY``. In a *shard* that is ``stream_no << 32 | seq``: the writer
    appends, and needs nothing but its own counter. In a *master* ids are given in order of arrival, so that a merge
    appends as well, whichever stream it copies (measured: 1.7 times the rate of keeping each stream together, at 100
    bytes a row), and the oldest rows lie together. There each row also holds its stream's number and its seq, and
    ``edgeshard_blocks`` says which ids a run of seqs has: seq ``first + k`` has the id ``first_id + k``. A *bundle* is
    as a master in all of this: it holds what its receiver lacked, carries a checksum, and is never merged into.

What a database holds, and has held
    ``edgeshard_ranges`` is the set of seqs of each stream that a master has ever held, as few intervals as possible.
    It alone decides what a merge copies. It is written in the transaction that brings the rows. A shard needs none:
    its writer's seqs have no holes, so it has held 1 to the highest of its rows and its truncations.
    ``edgeshard_truncations`` says which seqs a shard gave up, and to which database. Rows at or below a truncation
    may still be in the file for a moment; they do not count.
    ``edgeshard_streams.last_seq`` is the highest seq known to exist. What lies below it and is in no range is a *gap*.
    What a master held and deleted for want of room or interest stays in its ranges, is in no block, and is in
    ``edgeshard_pruned_ranges``: so it does not come back, and is told from what was lost.

When rows came
    A row carries no time of its own. ``edgeshard_arrivals`` says, to the minute, which ids a master gave when. Rows
    that came before the first entry count as come at its time.

Keyed tables
    A table with a key is still a log of changes in a shard, and in a bundle. A master keeps the newest version of each
    key. Each change carries a timestamp, ``_timestamp``; a deletion is a row of ``<table>_deleted``, which has the key alone.
    ``edgeshard_keys`` says which tables have a key. The seqs of rows that newer ones replaced stay in their block,
    which then has fewer rows than seqs: ``edgeshard_superseded`` says how many fewer, to tell them from
    lost ones. A deletion that no older change can follow any more may be pruned; ``edgeshard_tombstone_gc`` says up to
    which timestamp that was done.

Transactions
    ``edgeshard_transactions`` names the first and last id of each transaction of more than one row. Ids of a
    transaction follow one another, in a shard and in a master. A merge never commits a part of one.

When agents change
    ``edgeshard_renames`` names columns that have another name by now; a shard has this table from when its agent's
    class first says so. A shard may have the column by both names, a master has it by the one where the renames end.
    ``edgeshard_columns.kind`` of a column only ever widens (see kinds.py). The history of a keyed table has the columns
    and the renames of its table. The columns of a key, and that of a conflict rule, keep their names and kinds.
"""

from __future__ import annotations

from functools import cache
from typing import Final

#: The version of this package.
VERSION = "0.1.0"

#: "edge" in ASCII, as SQLite's application_id.
APPLICATION_ID: Final = 0x65646765

FORMAT_VERSION: Final = 1

IDENTITY: Final = (APPLICATION_ID, FORMAT_VERSION)

#: A writer's commit dirties few pages; small ones make it write less (measured: 1.5 KB a 110-byte row, against 4.5 KB).
SHARD_PAGE_SIZE: Final = 1024

#: Those that shards have, and of stores that are to write less (measured: 0.85 KB a row, in the same time).
SHARD_PAGE_SIZES: Final = (SHARD_PAGE_SIZE, 512)

MASTER_PAGE_SIZE: Final = 4096

#: Most bundles are small: of ten rows 15 KB, against 49 KB with a master's pages; a large one grows by a hundredth.
BUNDLE_PAGE_SIZE: Final = 1024

SEQ_BITS: Final = 32

SEQ_MAX: Final = (1 << SEQ_BITS) - 1

STREAM_NO_MAX: Final = (1 << 31) - 1

#: A row in a shard, its largest text or blob included. A merge holds a few of them in memory at a time.
ROW_BYTES_MAX: Final = 100_000_000

COLUMNS_MAX: Final = 400

#: Tables of one database, and columns of all of them together: whoever opens it reads the names of all.
TABLES_MAX: Final = 500

COLUMNS_IN_ALL_MAX: Final = 20_000

INDEXES_MAX: Final = 32

SHARD: Final = "shard"

MASTER: Final = "master"

#: What is carried: rows in the form of a master's, in a file that needs none beside it and has a checksum.
BUNDLE: Final = "bundle"

#: Tables beginning so are the format's own.
PREFIX: Final = "edgeshard_"

#: The columns that each record table of a shard begins with, and of a master.
SHARD_COLUMNS: Final = "_id INTEGER PRIMARY KEY"

MASTER_COLUMNS: Final = (
    "_id INTEGER PRIMARY KEY, _stream INTEGER NOT NULL REFERENCES edgeshard_streams(stream_no), _seq INTEGER NOT NULL"
)

TABLES: Final = """
CREATE TABLE edgeshard_database(
    database_id BLOB NOT NULL,              -- 16 random bytes: which database this is, in truncations
    role TEXT NOT NULL,                     -- shard | master | bundle
    agent_id TEXT,                          -- a shard's agent
    generation INTEGER NOT NULL DEFAULT 0,  -- + 1 with each merge
    next_id INTEGER NOT NULL DEFAULT 1      -- a master's next row id
) STRICT;
CREATE TABLE edgeshard_streams(
    stream_no INTEGER PRIMARY KEY,          -- this database's own number for the stream
    agent_id TEXT NOT NULL,
    stream_id BLOB NOT NULL UNIQUE,         -- 16 random bytes
    began_at TEXT NOT NULL,                 -- ISO 8601, UTC, by the writer's clock
    last_seq INTEGER NOT NULL DEFAULT 0     -- the highest known to exist; masters only
) STRICT;
CREATE TABLE edgeshard_ranges(
    stream_no INTEGER NOT NULL REFERENCES edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_blocks(
    stream_no INTEGER NOT NULL REFERENCES edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first_id INTEGER NOT NULL,
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_truncations(
    stream_no INTEGER NOT NULL REFERENCES edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    database_id BLOB NOT NULL,              -- of the database that holds them
    PRIMARY KEY(stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_transactions(
    first_id INTEGER PRIMARY KEY,
    last_id INTEGER NOT NULL
) STRICT;
CREATE TABLE edgeshard_columns(
    table_name TEXT NOT NULL,
    column_name TEXT NOT NULL,
    type TEXT NOT NULL,                     -- a key of STORED_AS
    PRIMARY KEY(table_name, column_name)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_indexes(
    table_name TEXT NOT NULL,
    columns TEXT NOT NULL,                  -- JSON list of column names; built in masters only
    PRIMARY KEY(table_name, columns)
) STRICT, WITHOUT ROWID;
"""

#: The text of each of these tables, as SQLite keeps it.
TEXTS: Final = {text.partition("(")[0].split()[-1]: text for text in TABLES.strip(" \n;").split(";\n")}

#: Tables that masters have gained since format 1 was first written. Whoever merges into a master makes those that it
#: lacks; whoever only reads one must do without (`master.has`). They hold no rows, so an older edgeshard may pass over
#: them.
ADDED_TABLES: Final = """
CREATE TABLE edgeshard_receipts(
    database_id BLOB NOT NULL,              -- of another database, which said that it holds these, durably
    stream_no INTEGER NOT NULL REFERENCES edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    is_gone INTEGER NOT NULL DEFAULT 0,     -- 1: it held them once, and pruned them
    PRIMARY KEY(database_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_peers(
    database_id BLOB PRIMARY KEY,           -- each database of which there is a receipt
    kind TEXT NOT NULL,                     -- edgeshard | postgresql
    noted_at TEXT NOT NULL,                 -- when its last receipt came, ISO 8601, UTC
    said_at TEXT NOT NULL,                  -- when it gave that, by its own clock
    generation INTEGER NOT NULL DEFAULT 0   -- its own by then: how often it had changed
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_pruned_ranges(
    database_id BLOB NOT NULL,              -- of the database that pruned them: this one, or one it was merged from
    stream_no INTEGER NOT NULL REFERENCES edgeshard_streams,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,                   -- which rule asked for it
    pruned_at TEXT NOT NULL,                -- when it last did, ISO 8601, UTC
    PRIMARY KEY(database_id, stream_no, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_arrivals(
    first_id INTEGER PRIMARY KEY,           -- this row, and those after it up to the next of these, came ...
    at INTEGER NOT NULL                     -- ... from then on: seconds since 1970, UTC
) STRICT;
CREATE TABLE edgeshard_write_stats(
    day TEXT PRIMARY KEY,                   -- ISO 8601, UTC
    bytes INTEGER NOT NULL,                 -- written to shards and master, as far as it is counted
    rows INTEGER NOT NULL                   -- merged
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_keys(
    table_name TEXT PRIMARY KEY,            -- a table of which the newest version of each key counts
    columns TEXT NOT NULL,                  -- JSON list of the names of its key's columns
    conflict TEXT NOT NULL,                 -- lww | first | max:column | min:column | keep-all
    has_history INTEGER NOT NULL DEFAULT 0, -- 1: versions that are replaced go to <table>_history
    last_timestamp INTEGER NOT NULL DEFAULT 0   -- the highest that a change of it had; masters only
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_superseded(
    stream_no INTEGER PRIMARY KEY REFERENCES edgeshard_streams,
    rows INTEGER NOT NULL                   -- of its seqs that are in a block, how many have no row any more
) STRICT;
CREATE TABLE edgeshard_priorities(
    table_name TEXT PRIMARY KEY,            -- in lower case; in a shard as well, where its agent says so
    priority INTEGER NOT NULL               -- which tables rows are dropped from first, where a budget asks for it
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_tombstone_gc(
    table_name TEXT PRIMARY KEY,            -- a keyed table of which deletions were pruned, ...
    last_timestamp INTEGER NOT NULL             -- ... the newest of them timestamped so
) STRICT, WITHOUT ROWID;
CREATE TABLE edgeshard_renames(
    table_name TEXT NOT NULL,
    old_name TEXT NOT NULL,                 -- what older agents call the column; lower case
    new_name TEXT NOT NULL,                 -- what newer ones call it
    UNIQUE(table_name, old_name, new_name)
) STRICT;
"""

#: The text of each of these.
ADDED_TEXTS: Final = {text.partition("(")[0].split()[-1]: text for text in ADDED_TABLES.strip(" \n;").split(";\n")}

#: All that a master has. edgeshard_shards is what a merger remembers of the files in its own folder; it could forget
#: all of it, and would only look again.
MASTER_TABLES: Final = (
    TABLES
    + """
CREATE TABLE edgeshard_shards(
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL DEFAULT '',         -- the file's, when it was last found to hold no news
    problem TEXT NOT NULL DEFAULT '',       -- why it was set aside, or ''
    merged_at TEXT                          -- when rows of it last came, ISO 8601, UTC
) STRICT, WITHOUT ROWID;
"""
    + ADDED_TABLES
)

#: What a bundle has beside `TABLES`: the SHA-256 of the file, in which these very 32 bytes count as zeros.
CHECKSUM_TABLE: Final = "edgeshard_checksum"

CHECKSUM_TEXT: Final = f"CREATE TABLE {CHECKSUM_TABLE}(sha256 BLOB NOT NULL) STRICT"

PRIORITIES: Final = "edgeshard_priorities"

PRIORITY_MAX: Final = 1_000

#: Those of these that a shard has, too, where its agent's tables say something there.
OF_SHARDS: Final = ("edgeshard_keys", "edgeshard_renames", PRIORITIES)

#: All that a bundle has. It says of the rows that it lacks whether they were pruned, or replaced.
BUNDLE_TABLES: Final = ";".join(
    [
        TABLES,
        *(
            ADDED_TEXTS[f"edgeshard_{name}"]
            for name in ("pruned_ranges", "keys", "superseded", "priorities", "renames")
        ),
        CHECKSUM_TEXT,
        "",
    ]
)

#: The tables a database must have for its rows to be read.
NEEDED: Final = (
    "edgeshard_database",
    "edgeshard_streams",
    "edgeshard_ranges",
    "edgeshard_blocks",
    "edgeshard_truncations",
    "edgeshard_transactions",
    "edgeshard_columns",
    "edgeshard_indexes",
)

#: How each kind of value is stored.
STORED_AS: Final = {
    "boolean": "INTEGER",
    "integer": "INTEGER",
    "real": "REAL",
    "text": "TEXT",
    "blob": "BLOB",
    "datetime": "TEXT",
    "date": "TEXT",
    "decimal": "TEXT",
    "uuid": "TEXT",
    "json": "TEXT",
    "timestamp": "INTEGER",
    "reason": "TEXT",
}

#: Columns of keyed tables that no class declares, each with its kind, which no other column has.
TIMESTAMP: Final = "_timestamp"

REASON: Final = "_reason"

OWN_COLUMNS: Final = {TIMESTAMP: "timestamp", REASON: "reason"}

#: Microseconds since 1970 in the year 2200: no clock is later, and a timestamp that says so is damage.
TIMESTAMP_MAX: Final = 7_258_118_400_000_000


def row_id(stream_no: int, seq: int) -> int:
    """The id of a row in a shard."""
    return stream_no << SEQ_BITS | seq


def stream_no_of(shard_id: int) -> int:
    """The stream number in the id of a shard's row."""
    return shard_id >> SEQ_BITS


def seq_of(shard_id: int) -> int:
    """The seq in the id of a shard's row."""
    return shard_id & SEQ_MAX


@cache
def added_columns(table: str) -> frozenset[str]:
    """The names of the columns of one of `ADDED_TABLES`."""
    body = ADDED_TEXTS[table].partition("(")[2]
    lines = [line.split("--")[0].split() for line in body.splitlines()]
    return frozenset(words[0] for words in lines if words and words[0].islower())


#: The format's own tables, as the modules that own them name them.
KEYS: Final = "edgeshard_keys"
SUPERSEDED: Final = "edgeshard_superseded"
TOMBSTONE_GC: Final = "edgeshard_tombstone_gc"
RENAMES: Final = "edgeshard_renames"
PRUNED_RANGES: Final = "edgeshard_pruned_ranges"
WRITE_STATS: Final = "edgeshard_write_stats"
TRANSACTIONS: Final = "edgeshard_transactions"

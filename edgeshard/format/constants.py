"""Identity, limits, roles and column types of the format, and the numbering of rows in a shard."""

from __future__ import annotations

from typing import Final

#: The version of this package.
VERSION = "0.1.0"

#: "edge" in ASCII, as SQLite's application_id.
APPLICATION_ID: Final = 0x65646765

FORMAT_VERSION: Final = 1

#: What the header of every database of ours contains: application_id and user_version.
IDENTITY: Final = (APPLICATION_ID, FORMAT_VERSION)

SHARD: Final = "shard"

MASTER: Final = "master"

#: Rows in the form of a master's, in a single file with a checksum, to take to another store.
BUNDLE: Final = "bundle"

#: What removed shards had brought, in a file next to the master.
NOTES: Final = "notes"

#: A writer's commit dirties few pages, so small pages mean fewer bytes written (measured: 1.5 KB for a 110-byte row,
#: against 4.5 KB with pages of 4,096 bytes).
SHARD_PAGE_SIZE: Final = 1024

#: With the write profile "low" they are even smaller (measured: 0.85 KB a row, in the same time).
SHARD_PAGE_SIZE_LOW: Final = 512

#: Where commits are large, they fill pages of any size, and fewer pages take less time (measured: a fifth less for 100
#: rows of 1 or 10 KB in a commit, written and merged).
SHARD_PAGE_SIZE_LARGE: Final = 8192

#: The page sizes that shards have.
SHARD_PAGE_SIZES: Final = (SHARD_PAGE_SIZE, SHARD_PAGE_SIZE_LOW, SHARD_PAGE_SIZE_LARGE)

#: With 8,192 bytes, merging rows of 1 KB takes a fifth less time, and a master of them a seventh less space. But then a
#: merge of one row writes twice as much (58 KB instead of 29), and one of a row from each of 100 shards 4 MB instead of
#: 70 KB: what savepoints may have to restore exceeds the 64 KB that SQLite keeps of it in memory (all measured).
MASTER_PAGE_SIZE: Final = 4096

#: Most bundles are small: one of ten rows takes 15 KB, against 49 KB with a master's pages. A large one grows by 1 %.
BUNDLE_PAGE_SIZE: Final = 1024

SEQ_BITS: Final = 32

SEQ_MAX: Final = (1 << SEQ_BITS) - 1

STREAM_NO_MAX: Final = (1 << 31) - 1

#: The largest row of a shard, and the largest text or blob in it. A merge holds a few of them in memory at a time.
ROW_BYTES_MAX: Final = 100_000_000

# Limits on tables. `records.limits` checks them wherever a table enters.

#: The most columns of one table, without the format's own.
COLUMNS_MAX: Final = 400

#: The most indexes of one table, without that of its key.
INDEXES_MAX: Final = 32

#: The most renames of one table's columns.
RENAMES_MAX: Final = 400

#: The most tables of one database, and columns of all of them together: opening a database reads the names of all.
TABLES_MAX: Final = 500

COLUMNS_IN_ALL_MAX: Final = 20_000

PRIORITY_MAX: Final = 1_000

#: The SQL type that each type of column is stored as. To add a type: here, records/codecs, records/declare (error
#: text), postgres/values, postgres/encoding, inspect/verify; records/types if it widens.
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

#: Columns of keyed tables that no class declares. Each has a type of its own, which no declared column has.
TIMESTAMP: Final = "_timestamp"

REASON: Final = "_reason"

OWN_COLUMNS: Final = {TIMESTAMP: "timestamp", REASON: "reason"}

#: Microseconds since 1970 in the year 2200. No clock is later, so a higher timestamp is damage.
TIMESTAMP_MAX: Final = 7_258_118_400_000_000


def row_id(stream_no: int, seq: int) -> int:
    """Return the id of a row in a shard."""
    return stream_no << SEQ_BITS | seq


def stream_no_of(shard_id: int) -> int:
    """Return the stream number in the id of a shard's row."""
    return shard_id >> SEQ_BITS


def seq_of(shard_id: int) -> int:
    """Return the seq in the id of a shard's row."""
    return shard_id & SEQ_MAX

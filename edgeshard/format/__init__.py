"""The on-disk format: what the databases of a store look like. Shards, masters and bundles follow it.

Rows and their addresses
    A *stream* is one opening of a shard for writing. Each opening begins a new stream, with a random 128-bit id, at its
    first write. Its rows are numbered 1, 2, 3 ... across all tables: their *seqs*. (stream, seq) is the address of a
    row. It never changes, wherever the row is copied.

Where a row is stored
    Every record table has ``_id INTEGER PRIMARY KEY``. In a *shard* that is ``stream_no << 32 | seq``, so the writer
    only appends, and needs nothing but its own counter. In a *master* ids are assigned in order of arrival. So a merge
    only appends as well, whichever stream it copies (measured: 1.7 times the rate of keeping each stream together, at
    100 bytes a row), and the oldest rows lie together. A row of a master also holds the number of its stream and its
    seq, and ``_edgeshard_blocks`` maps runs of seqs to ids: seq ``first + k`` has the id ``first_id + k``. So rows are
    found by their address without an index over it, which would cost each merge more than the copy itself. Agents that
    take turns leave a block for each turn. Longer blocks would need ids out of the order of arrival, on which readers
    and the rules by age rely, or would have to be read row by row. So blocks stay as they are made, and nothing reads
    all of them: see `edgeshard.sources.diff`. A *bundle* is
    laid out like a master. It holds what its receiver lacked, has a checksum, and is never merged into.

What a database holds, and has held
    ``_edgeshard_ranges`` is the set of seqs of each stream that a master has ever held, as few intervals as possible.
    It alone decides what a merge copies. It is written in the same transaction as the rows. A shard needs none: a
    writer leaves no holes, so a shard has held seqs 1 to the highest of its rows and truncations.
    ``_edgeshard_truncations`` says which seqs were truncated from a shard, and which database holds them. For a moment,
    truncated rows may still be in the file; they do not count.
    ``_edgeshard_streams.last_seq`` is the highest seq known to exist. A seq below it that is in no range is a *gap*.
    ``_edgeshard_missing`` counts these seqs of each stream that has any, so that a merge need not look for them in all
    streams and ranges.
    Rows that a master held and pruned stay in its ranges and are in no block, so they do not come back.
    ``_edgeshard_pruned_ranges`` lists them, which tells them from lost ones. It also lists what merged databases say
    that they pruned (``is_own`` is 0).
    ``_edgeshard_proven`` says which seqs a master copied from a shard's file, or compared with it. Only these may be
    deleted from that file.
    ``_edgeshard_blocked`` says which rows of a shard's file a master cannot take, and ``_edgeshard_conflicts`` why. As
    long as the file is there, they are pending, not missing.

When rows arrived
    A row has no time of its own. ``_edgeshard_arrivals`` says, to the minute, which ids a master assigned when. Rows
    older than the first entry count as having arrived at its time. ``_edgeshard_clock`` has the time that a master
    counts, by which rows become too old.

Keyed tables
    In a shard and in a bundle, a table with a key is a list of changes like any other. A master keeps the newest
    version of each key. Each change has a timestamp, ``_timestamp``. A deletion is a row of ``<table>_deleted``, a
    *tombstone*, which has only the key. ``_edgeshard_keys`` says which tables have a key. When a newer version replaces
    a row, its seq stays in its block, which then has fewer rows than seqs. ``_edgeshard_superseded`` counts these,
    which tells them from lost rows. A tombstone that no older change can follow may be pruned;
    ``_edgeshard_tombstone_gc`` has the newest timestamp among those that were.

Transactions
    ``_edgeshard_transactions`` has the first and last id of each transaction of more than one row. The ids of a
    transaction are consecutive, in a shard and in a master. A merge never commits a part of a transaction.

When agents change
    ``_edgeshard_renames`` lists columns that got another name. A shard may have the column under both names; a master
    has it under the last one. The type of a column in ``_edgeshard_columns`` only ever widens (see records/types.py).
    The history of a keyed table has the columns and the renames of its table. The columns of a key, and that of a
    conflict rule, keep their names and types.

What people see
    The names of these tables begin with an underscore, so that tools such as Datasette hide them; those of records
    begin with a letter. Columns have the order in which they were declared (``_edgeshard_columns.position``). A master
    has a view for each record table, ``<table>_with_agent``, which names the agent of each row (see
    master/agent_views.py).

Optional tables
    A master and a bundle have all tables of their role from the start. A shard has ``_edgeshard_indexes``,
    ``_edgeshard_keys``, ``_edgeshard_renames`` and ``_edgeshard_priorities`` only once a class of its agent declares an
    index, a key, a rename or a priority: most agents declare none, and each table costs a page of every shard, and time
    whenever the shard is opened.
"""

from edgeshard.format.constants import (
    APPLICATION_ID,
    BUNDLE,
    BUNDLE_PAGE_SIZE,
    COLUMNS_IN_ALL_MAX,
    COLUMNS_MAX,
    FORMAT_VERSION,
    IDENTITY,
    INDEXES_MAX,
    MASTER,
    MASTER_PAGE_SIZE,
    NOTES,
    OWN_COLUMNS,
    PRIORITY_MAX,
    REASON,
    RENAMES_MAX,
    ROW_BYTES_MAX,
    SEQ_BITS,
    SEQ_MAX,
    SHARD,
    SHARD_PAGE_SIZE,
    SHARD_PAGE_SIZE_LARGE,
    SHARD_PAGE_SIZE_LOW,
    SHARD_PAGE_SIZES,
    STORED_AS,
    STREAM_NO_MAX,
    TABLES_MAX,
    TIMESTAMP,
    TIMESTAMP_MAX,
    VERSION,
    row_id,
    seq_of,
    stream_no_of,
)
from edgeshard.format.tables import (
    BUNDLE_TABLES,
    CHECKSUM_TABLE,
    COMMON_TABLES,
    DDL,
    INDEXES,
    KEYS,
    MASTER_COLUMNS,
    MASTER_TABLES,
    NOTES_TABLES,
    OPTIONAL_SHARD_TABLES,
    PREFIX,
    PRIORITIES,
    RENAMES,
    REQUIRED_TABLES,
    SHARD_COLUMNS,
    SHARD_TABLES,
    SUPERSEDED,
)

__all__ = [
    "APPLICATION_ID",
    "BUNDLE",
    "BUNDLE_PAGE_SIZE",
    "BUNDLE_TABLES",
    "CHECKSUM_TABLE",
    "COLUMNS_IN_ALL_MAX",
    "COLUMNS_MAX",
    "COMMON_TABLES",
    "DDL",
    "FORMAT_VERSION",
    "IDENTITY",
    "INDEXES",
    "INDEXES_MAX",
    "KEYS",
    "MASTER",
    "MASTER_COLUMNS",
    "MASTER_PAGE_SIZE",
    "MASTER_TABLES",
    "NOTES",
    "NOTES_TABLES",
    "OPTIONAL_SHARD_TABLES",
    "OWN_COLUMNS",
    "PREFIX",
    "PRIORITIES",
    "PRIORITY_MAX",
    "REASON",
    "RENAMES",
    "RENAMES_MAX",
    "REQUIRED_TABLES",
    "ROW_BYTES_MAX",
    "SEQ_BITS",
    "SEQ_MAX",
    "SHARD",
    "SHARD_COLUMNS",
    "SHARD_PAGE_SIZE",
    "SHARD_PAGE_SIZES",
    "SHARD_PAGE_SIZE_LARGE",
    "SHARD_PAGE_SIZE_LOW",
    "SHARD_TABLES",
    "STORED_AS",
    "STREAM_NO_MAX",
    "SUPERSEDED",
    "TABLES_MAX",
    "TIMESTAMP",
    "TIMESTAMP_MAX",
    "VERSION",
    "row_id",
    "seq_of",
    "stream_no_of",
]

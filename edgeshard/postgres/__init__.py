"""Push to PostgreSQL: each row that a master has and the server lacks, exactly once.

    options            defaults, limits and the listener, for callers that do not load psycopg yet
    once               one push, or a preview of it
    inventory          which rows a database holds of all pushes
    watcher            the push service: pushes what merges bring
    pusher             the operator: chunk by chunk, with retries
    reader             reads the master, in snapshots of milliseconds
    names              what tables, columns and indexes are called there (pure)
    plan               which rows are missing, and how many go into one transaction (pure)
    prepare            which tables a chunk needs, and which streams are blocked if a table cannot be made fit
    sender             one chunk in one transaction
    conflicts          which versions of a key stay, in that transaction
    rejects            what is left out: transactions with a rejected row, blocked streams
    row_search         which row of a chunk the server rejected
    receipt_writer     records in the master what PostgreSQL holds
    target             the database: its connection, and what it holds
    own_tables         our own tables there: all SQL on them
    server_tables      record tables there: inspect, create and alter them
    schema             what tables look like here and there (pure)
    schema_changes     which statements a table there needs (pure)
    values             column types and values in PostgreSQL (pure)
    encoding           rows in COPY's binary format, or as parameters (pure)
    sqlstate           what a server's answer means (pure)
    address            DSNs, and how an address is shown without secrets
    server             a connection: the only user of psycopg, besides address
    refused_connection why a server refuses a connection

One transaction of the server brings a chunk of rows and the ranges that name them:

    1. BEGIN. Lock the rows of the chunk's streams there, in the order of their ids, and read their ranges.
    2. If the ranges are not those that the chunk was planned with, another device pushed: ROLLBACK, and plan again.
    3. Lock the keyed tables. Insert the rows. Delete the versions that lost to others. Write the ranges.
    4. COMMIT: this is the commit point.
    5. Record in the master what the server holds: a receipt, which is only ever written after the commit.

A crash before the commit leaves nothing there. A crash after it leaves rows that the ranges name. If the answer to
COMMIT never arrives, either may be true; the next connection reads the ranges, and knows.
"""

from __future__ import annotations

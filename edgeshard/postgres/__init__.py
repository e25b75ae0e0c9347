"""Push to PostgreSQL: each row that a master has and the server lacks, exactly once.

    options             defaults, limits and the listener, for callers that do not load psycopg yet
    once                one push, or a preview of it
    inventory           which rows a database holds of all pushes
    compare             how the rows of a database differ from the master's, by address
    watcher             the push service: pushes what merges bring
    pusher              the operator: chunk by chunk, with retries
    reader              reads the master, in snapshots of milliseconds
    names               what tables, columns and indexes are called there (pure)
    plan                which rows are missing, and how many go into one transaction (pure)
    prepare             which tables a chunk needs, and which rows are rejected if a table cannot be made fit
    sender              one chunk in one transaction
    conflicts           which versions of a key stay, in that transaction
    rejects             which rows are left out before the server is asked: they, or their tables, do not fit
    sift                sends a chunk that the server refused, without the rows that do not fit
    rejected_record     the master's record of rejected rows
    unreachable         keep apart the streams of a Citus cluster whose worker does not answer (pure)
    receipt_writer      records in the master what PostgreSQL holds
    tombstones          deletes tombstones there that the master has collected
    target              the database: its connection, and what it holds
    own_tables          our own tables there: all SQL on them
    server_tables       record tables there: inspect, create and alter them
    citus               how tables are distributed over the workers of a Citus cluster
    schema              what tables look like here and there (pure)
    schema_changes      which statements a table there needs (pure)
    indexes             indexes that make no row fail (pure)
    values              column types and values in PostgreSQL (pure)
    jsonb_text          JSON as PostgreSQL shows a jsonb value (pure)
    encoding            rows in COPY's binary format, or as parameters (pure)
    sqlstate            what a server's answer means (pure)
    address             DSNs, and how an address is shown without secrets
    server              a connection: the only user of psycopg, besides address
    server_kind         what kind of server it is
    refused_connection  why a server refuses a connection

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

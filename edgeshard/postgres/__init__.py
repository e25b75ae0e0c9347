"""PostgreSQL as one more target: what a master has and the server lacks goes there, exactly once.

    plan      which rows are missing there, which go into the next transaction, and which are held back (pure)
    values    what a value is in PostgreSQL, and which it cannot hold (pure)
    schema    which statements a table there still needs (pure)
    errors    which SQLSTATE is which error of ours (pure)
    local     reads the master, in snapshots that last for milliseconds
    postgres  the one door to psycopg
    remote    our tables there: identity, streams, ranges, record tables
    push      the operator: plan -> lock and compare ranges -> rows and ranges -> COMMIT -> a receipt in the master
    watch     pushes what merges bring, and goes on through failures

One transaction of the server brings a chunk of rows, and the ranges that say so:

    BEGIN; lock the streams' rows there, in the order of their ids, and read their ranges
    the ranges are not those that the chunk was planned with: somebody else pushed; ROLLBACK, and plan anew
    copy the rows in, plainly; write the ranges
    COMMIT                                  <- the commit point
    note in the master what the server holds (a receipt; it is only written after the commit)

A crash before the commit leaves nothing there; one after it leaves rows that the ranges name. An answer to COMMIT that
never comes leaves it open which of both it is; whoever connects next reads the ranges, and knows.
"""

from __future__ import annotations

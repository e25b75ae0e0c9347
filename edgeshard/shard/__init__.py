"""The writer: open a shard, write rows and transactions, and look things up in read-only references.

open
    find or make the shard's file, and open it
draft
    the file of a new shard until its first transaction is committed
shard
    the public handle, and the hot path of a write
async_write
    a write that an asyncio program awaits
transaction
    one ``with shard.transaction()`` block
inserts
    how records of a class become INSERTs
handle
    the state of an open shard, and what becomes of it after a failure
health
    whether its files are still in place, and whether the process forked
wal_limit
    how long the WAL may become before the writer checkpoints it
quota
    the writer's share of the store's disk budget
row_sizes
    how much space rows take in the shard and in the master
schema
    adapt the shard's tables to a record class
truncations
    which rows a master holds already
own_rows
    read the rows that the shard still holds
store_master
    what the store's master knows: the newest timestamp, and which classes do not fit
lookup
    references
write_profile
    the settings behind ``Store(wear=...)``
"""

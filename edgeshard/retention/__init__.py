"""Retention: delete rows of a master by rule, and remember which.

Where to read:

============================  ==========================================================================================
rules, store_rules            the rules of one prune; the `prune=` argument of a store
quantities                    ages, row counts and sizes, as people write them
prune                         a whole prune: each rule in order, then the disk, then the report
row_rules, id_bounds          the rules by age, count and size; how they are turned into ids
drop_table                    the rule that deletes a whole table
tombstones                    the rule for tombstones
watermark, own_shards, holds  whether older changes may still arrive, and which streams and shards may bring them
window, plan                  one transaction; what it deletes (pure)
run, scope                    what the rules share; which tables they apply to
pace, progress                how much each transaction does; what was done so far
deletable, peer_cache         which rows their agent protects, or a peer does not hold yet; what peers hold
bookkeeping                   retire streams of which all rows were pruned, and forget the oldest of them
by_address, by_hand           take rows out by address; record what other programs deleted
erase, erased_file            erase rows for good; the file that names them, next to the master
refresh                       run the user's own statements after rows came or went
shrink, sizes                 give free pages back to the disk; measure the master
clock_status                  what of the clock awaits confirmation, and its confirmation
scheduler, due                follow a store's rules after its merges; when to do so
============================  ==========================================================================================

A pruned row is deleted from its table and cut out of its block, but stays in the ranges: whichever copy of a shard,
bundle or master is merged later, the row does not come back. Its address and the rule's name are added to
``_edgeshard_pruned_ranges``.

Crash safety, step by step
    1. Turn each rule into an id below which rows are deleted: ids are in order of arrival. A transaction that would be
       divided is kept. This step only reads.
    2. Go through the ids below it in windows, oldest first. A window divides no transaction.
    3. Take ``merge.lock``, as a merger does for a pass, and check that the master is still the file that was opened.
       BEGIN IMMEDIATE on the master. Read what the window holds, because another prune may have been here, and what
       other databases hold. Keep rows that no other database holds, if the rules say so, and with one row of a
       transaction the whole transaction.
    4. Increment the generation. Delete the rows from all tables, cut the blocks, record the pruned ranges, and delete
       transactions that have no row left.
    5. COMMIT at synchronous=FULL. *This is the commit point* of the window: rows, blocks and pruned ranges change
       together.
    6. Release the lock, and rest, so that a waiting merger gets it. Then take the next window.
    7. To give pages back to the disk: move some of the last pages into free places and cut the file, a few
       pages per transaction.

    After a kill before step 5, the window is unchanged. After a kill later, the window is pruned, and the next prune
    continues behind it. A power cut has the same effect, because of FULL. SQLite's own lock would be enough to keep
    prunes and mergers apart: each transaction of a merger reads what the master holds, and two prunes at once find each
    other's windows empty. ``merge.lock`` keeps a prune apart from whatever replaces the master. It is held for one
    transaction at a time, so that a merger waits for milliseconds, and a prune works next to a watcher.
"""

from __future__ import annotations

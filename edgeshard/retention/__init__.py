"""Retention: rows of a master are deleted by rule, and what was there is remembered.

Read in this order: rules (what is asked, pure), plan (which ids go, pure), step (one transaction), passed and deletions
(which deletions of keyed tables go), space (free pages), passes (all of it), report.

A row that is pruned leaves its table and its block, and stays in the ranges: whichever copy of a shard, bundle or
master comes later, a merge does not bring it again. ``edgeshard_pruned_ranges`` gains its address and the rule's name.

Crash safety, step by step
    1. Each rule is turned into an id below which rows go: ids are in order of arrival, and a transaction that lies
       across is kept. Only read.
    2. The ids below it are gone through in windows, oldest first; a window ends where no transaction does.
    3. BEGIN IMMEDIATE on the master. What the window holds is looked up anew, since another prune may have been here.
       Rows that nobody else holds are kept back where that is asked, and with one row of a transaction all of it; what
       others hold is looked up anew, too.
    4. Count the generation up. Delete the rows, in all tables; cut the blocks; add the prunings; delete transactions of
       which no row is left.
    5. COMMIT at synchronous=FULL. *This is the commit point* of the window: rows, blocks and prunings are one change.
    6. Pause for longer than a merger sleeps that waits for the lock, so that it gets in. Then the next window.
    7. Where the disk is to get its pages back: move some of the last pages into free places, and cut the file, a few
       at a time, each a transaction.

    Killed before 5: the window is as it was. Killed after it: the window is gone, and the next prune goes on behind it.
    A power cut: the same, for FULL. No lock is taken: a merger reads what the master holds in each transaction of its
    own, and two prunes at once find each other's windows empty.
"""

from __future__ import annotations

"""Merge sources into a master, and truncate the shards that it then holds.

Merging is idempotent, commutative and associative over databases: sources may be merged repeatedly, in any order, and
by any route.

The modules, in reading order:

    init_store        make an empty store
    once              one merge, under the locks that keep mergers out of each other's way; or a preview of it
    watcher           a merger that watches a store
      listener        receives its events; callers can load it without the watcher
      folder_watch    tells it of changed files
    locks             merge.lock and watch.lock
      liveness        whether a watcher that holds its lock is at work
    merger            one pass: scan, attach, copy, commit, truncate or remove, remember
      merge_pass      what one pass should do, and its counts so far
      shard_cache     what was found in each shard's file, so that only changed ones are opened
      master_handle   the master between passes, and whether it is still in its place
      removal_notes   what is noted, outside the master, of shards before they are removed
      state_log       logs each thing that is wrong with the store once when it begins, and once when it ends
      quota           the merger's share of a disk budget
        row_growth    how much larger rows become when they are merged
        drop_order    which rows the budget may drop, and from which tables first
    chunk             one transaction of the master, in order
      blame           whose fault a failed read is
    blocked           which rows the target cannot take
    apply             copy what the master lacks of one source
      target          what a transaction knows of the master
      schema_plan     decide how a source's table and the master's become one
      schema_merge    give the master the source's tables, columns and indexes
      keyed_tables    make tables keyed, with their tombstones and history
      conflicts       which versions of a key are kept
      late_changes    changes that arrive after newer tombstones were collected
    truncate          delete from a shard what the master holds durably
    reap              remove the shards of agents that have ended
    dry_run           what a merge would do
    erase             erase rows for good, in the master and pending ones
    accept_loss       accept that rows are lost

The sources themselves are read by `edgeshard.sources`.

Crash safety, step by step:

    1. Lock ``merge.lock``. This is for efficiency only: each step below is safe next to another merger.
    2. Scan ``shards/`` for shards that changed since a merge last found nothing new in them, and attach up to 100 of
       these, read-only.
    3. BEGIN IMMEDIATE on the master. The first statement increments its generation. From here on no other process
       changes what the master holds, and each shard is read in one snapshot.
    4. For each shard, in a savepoint: check its format. Compare the rows that the master has already under their
       addresses, value by value. Then copy what the master's ranges lack, table by table, and add blocks and ranges.
       Record which rows are now *proven*: copied from this very file, or compared with it. Settle the keyed tables that
       got rows. Nothing that depends on a shard's rows happens outside its savepoint: if any step fails, its part is
       rolled back, and the shard is quarantined.
    5. COMMIT at synchronous=FULL. *This is the commit point*: the rows are in the master, durably.
    6. For each shard, as long as the master is still the file that has its name, do one of these, over a connection of
       its own. It must open the file that step 4 read (device and inode): another one that took its place, such as a
       copy from a cloned machine, may have other rows under the same addresses, and is left to the next merge.

       - Truncate it: record which seqs this master holds (from that commit on these rows do not count), and delete
         the rows, as far as they are proven. A merger that watches leaves this for later if the agent is busy.
       - Remove it, if no process has the agent's lock: note outside the master, durably, up to which seqs it had
         brought rows (``removed-shards.db``). Take that lock, open the shard exclusively, check once more that all of
         its rows are proven, empty the WAL, and remove the files, the WAL durably first. Each name is looked up in the
         folder that was opened before the lock was taken, and removed only if it still leads to the file that was
         checked. Shards are removed in groups, each of which syncs the folder once.

The ranges decide what is copied, but not what may be deleted from a shard. They also list rows that came from other
databases, which may be different rows under the same addresses: forged, or written by a clone of the machine. As long
as the master has such a row, step 4 compares it. Once it was pruned or superseded, only the record of step 4 counts
(``_edgeshard_proven``). No other database can add to it: what a master, a bundle or another shard brings, says that it
superseded, or says that it pruned, proves nothing. So a row is deleted from a shard only if

    - this master copied it from that file, or
    - this master compared it with a row that it had,

whatever became of the master's row afterwards. A change of a keyed table that is listed because another database
superseded it is copied into its place, and step 4 judges it anew; but not in a master of which rows were erased, or
deleted by hand: it might take the place of one of these. All other rows that the ranges list, and that cannot
be compared, are *unproven*. They stay in the shard, with the later rows of their stream, are not copied, and the shard
is reported as quarantined, with what to do. Everything else in it is merged and truncated as always.

Blocked rows: if a table of a source contradicts the target's, only its rows are left out, and the transactions that
touch them; what follows is copied. So the ranges get holes. For a shard, step 4 records the rows in these holes
(``_edgeshard_blocked``): they are pending, not missing, as long as its file is there. The record is about reports, and
about what need not be examined again; it permits nothing. A shard is truncated up to its first row that is not proven,
and removed only if all are, so a blocked row stays there, with those after it. A later merge for which the reason no
longer holds finds the rows by the ranges, as always.

What happens on a crash:

    Killed before 5: the master is unchanged, and the shard has everything. The next merge copies it.
    Killed after 5, before 6: the rows are in both. The next merge sees in the ranges that nothing is missing, compares
        the rows, commits a generation of its own, and truncates. That commit is needed: the killed merger's commit may
        be visible, but not durable. Rows that were pruned meanwhile cannot be compared; that they are proven was
        committed with them.
    Killed in 6: a truncation is recorded in one transaction of the shard, so it is there whole or not at all. The next
        truncation finishes deletions that were left over. A shard whose removal is cut short is still a whole database,
        and is removed next time.
    Power cut at any point: once step 6 has begun, the master's commit (at FULL) is never lost. A shard may fall back to
        an earlier commit of its own, and show rows again that it had truncated. The ranges know them, so they are not
        copied again. They are still proven, because that record stays as long as the file, so they are truncated again.
        Even the removal of the file may be undone, after its streams have retired: the record of a retired stream names
        the file from which all of its rows are proven.
    An fsync of the master fails: the merger closes it. Whoever opens it next may find the commit in the WAL, although
        it never reached the disk, and no later fsync writes it. So a WAL that was left behind is copied into the
        database before anything else is committed. If a reader prevents that, and this merger saw the fsync fail, it
        waits.
    An older master is put back: what it lacks is copied, and what it has is compared. Its record of what is proven is
        as old as its ranges. What it lacks and no shard has any more is missing, and named: the shards record what was
        truncated, and the notes outside the master what was in removed shards.
    An older copy of a shard is put back: under the name of its file, its rows are still proven. Under another name
        they are compared, those that were superseded are judged anew, and those that were pruned are unproven. So are
        those of a stream that retired together with others of several agents. Rows of a stream that was forgotten are
        new (see `edgeshard.retention.bookkeeping`).
"""

from __future__ import annotations

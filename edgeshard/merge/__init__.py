"""The one operator: merge(source -> target). Idempotent, commutative and associative over databases.

Read in this order: plan (pure), source (what a database holds), copy (into the target), truncate (the shard), orphans
(shards whose agent is gone), carried (media that cannot be written), job (one source), memory (of the shards, between
passes), cycle (a pass: all of it, in the order that keeps every promise), locks, once (one merge), notice (of changed
files), service (a merger that watches).

Crash safety, step by step
    1. Lock ``merge.lock``. For efficiency only: each step below holds beside another merger.
    2. Attach up to 100 shards that changed since they were last found without news, read-only.
    3. BEGIN IMMEDIATE on the master, whose first statement counts the generation up. From here on nobody else
       changes what the master holds, and each shard is read in one snapshot.
    4. For each shard, in a savepoint: check its format, copy what the master's ranges lack, table by table, add blocks
       and ranges. A shard that fails any check leaves nothing behind.
    5. COMMIT at synchronous=FULL. *This is the commit point*: the rows are in the master, durably.
    6. For each shard, over a connection of its own, as long as the master is still the file that has its name: write
       down which seqs this master holds (that is the truncation), and delete those rows. A merger that watches leaves
       this for later where the agent is busy. Or, where nobody has the agent's lock: take it, connect alone, see that
       still no row is in it that the master lacks, empty the log, and remove the files, the log durably first.

    Killed before 5: the master is as it was, the shard has everything; the next merge copies it.
    Killed after 5, before 6: the rows are in both; the next merge sees by the ranges that nothing is missing, commits
    a generation of its own, and truncates. That commit is needed: the killed merger's may be visible, but not durable.
    Killed in 6: a shard's own transaction, whole or not at all; or a whole shard that is removed next time.
    A power cut at any point: the master's commit (FULL) is never lost once step 6 has begun; a shard may fall back to
    an earlier commit of its own, and so show rows again that it had truncated: the ranges know them.
"""

from __future__ import annotations

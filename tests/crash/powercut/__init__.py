"""Power cuts, simulated under the real package: nothing acknowledged is lost, doubled or changed.

The fault model
    Everything ends at any operation that changes the disk, before it, or right after a sync; or one process does, while
    the others go on. After a kill all that was written is there, and nothing of it is more durable than before. After a
    power cut there is what was synced; of the rest any part (none, the first changes, some, all), for each file by
    itself, also by the sector of 512 bytes, missing or garbage; and of the names that came and went in a folder that
    was not synced any, in the order of a journal or in none. A write spoils no byte beside it (SQLite's "powersafe
    overwrite"), a sync makes durable what it is asked to, and no disk loses what was synced.

Read in this order: disk (what survives), scheduler (who runs), machine (what edgeshard runs on), vfs and os_calls
(how edgeshard reaches it), contents (what is there), oracle (what was promised), workload (who does what), trial, trials;
and tests/mutants/powercut_mutants.
"""

"""Simulate power cuts below the real package: no acknowledged row is lost, duplicated or changed.

The fault model
    Everything can end before any operation that changes the disk, or right after a sync; or one process ends, and the
    others continue. After a kill, everything written is there, and none of it is more durable than before. After a
    power cut, everything synced is there. Of the rest, each file has any part: none, the first changes, some, or all;
    also by sectors of 512 bytes, missing or garbage. Of the names that were added to or removed from a folder since
    its last sync, any changes survive, in the order of a journal or in any order. A write damages no byte next to it
    (SQLite's "powersafe overwrite"), a sync makes durable what it is asked to, and no disk loses what was synced.

Read in this order: disk (what survives), scheduler (who runs), machine (what edgeshard runs on), vfs and os_calls
(how edgeshard reaches it), contents (what is there), oracle (what was promised), workload (who does what), trial, trials,
and tests/mutants/powercut_mutants. Trials play everything at once, at random. What is done rarely is cut short by
itself, at each of its operations: cuts, procedures.
"""

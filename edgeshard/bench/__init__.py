"""Five ways to store what many agents write, measured under one workload: ``python -m edgeshard.bench``.

Read the package in this order: workload (what the agents write), system (what each of the systems must do), systems
(one module each: shared SQLite as opened by default and tuned, SQLite behind a queue, PostgreSQL, edgeshard, and a
hybrid), crew and agents (the writing processes), processes (what the system says of them), account (which rows were
lost or doubled), measure (one measurement), campaign (which measurements, in which order), peers and scaling
(edgeshard's own costs, against plain SQLite), machine, summary (medians), markdown, plots, page and export (what is
shown and kept), command.

Each agent is a process. Every row is compared after each measurement. A system whose parts are not installed is
reported as not run, never estimated, and systems of different durability are never in one table.
"""

"""Measure edgeshard's own costs and how they grow, each as a curve, with plain SQLite as the baseline where it applies.

Each module imports only from those above it in this list:

curve            what a curve is, and how far the curves go
timing           time a piece of work; alternate between contestants
plain_sqlite     the baseline: plain apsw with edgeshard's settings
sample_rows      fill shards and masters, and time merges that must be complete
backlog          filled shards that edgeshard and plain SQL both copy
throughput       the curves write and merge
growth           the curves shards and size
wake             the curve wake
bytes_written    the curve wear
processor_waits  the curve turns
registry         all curves by name
"""

"""Measure what edgeshard costs where it used to be slower than others, and compare it with goals.

Each module imports only from those above it in this list:

cost          the figures of one cost in one round
shard_holder  a process with many open shards
merge_once    a process that merges once
bare_copy     the least that a merge of many files can be
many_shards   merges of many shards
processes     the import, a merge that finds nothing, and openings of shards
registry      all costs by name, and the workloads of systems that have a goal
second_copy   the limit of batches: the second copy of their rows, alone
goal          the goals, and whether a run reached them
"""

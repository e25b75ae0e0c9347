"""Tests of ``edgeshard.shard``."""

"""Tests of ``edgeshard.records``."""

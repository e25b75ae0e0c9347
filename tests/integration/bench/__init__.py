"""Tests of ``edgeshard.bench``."""

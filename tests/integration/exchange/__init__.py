"""Tests of ``edgeshard.exchange``."""

"""Tests of ``edgeshard.inspect``."""

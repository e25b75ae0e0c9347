"""Tests of ``edgeshard.retention``."""

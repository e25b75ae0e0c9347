"""Tests of ``edgeshard.merge``."""

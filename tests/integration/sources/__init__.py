"""Tests of ``edgeshard.sources``."""

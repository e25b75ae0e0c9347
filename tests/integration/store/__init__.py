"""Tests of ``edgeshard.store``."""

"""Tests of ``edgeshard.cli``."""

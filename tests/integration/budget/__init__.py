"""Tests of ``edgeshard.budget``."""

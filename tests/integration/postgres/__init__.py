"""Tests of ``edgeshard.postgres``."""

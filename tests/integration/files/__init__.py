"""Tests of ``edgeshard.files``."""

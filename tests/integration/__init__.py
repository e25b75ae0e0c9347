"""Tests of the real package on real files, one folder for each package."""

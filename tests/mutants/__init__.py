"""Faults injected on purpose, each of which a named test must catch."""

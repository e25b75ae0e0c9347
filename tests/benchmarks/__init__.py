"""Measurements; they assert no times."""

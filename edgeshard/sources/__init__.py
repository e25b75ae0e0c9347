"""Read databases that we do not trust: attach them read-only, check them, and find the rows that we lack."""

"""Run the whole system for a long time, with kills, and account for every row."""

"""Kill real processes at random moments and account for every row."""

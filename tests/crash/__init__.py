"""Power cuts, failing system calls, kills."""

"""Long runs, each started by ``python -m tests.campaigns.NAME``."""

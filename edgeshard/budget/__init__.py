"""The disk budget: how it is divided (`policy`, pure), and how much of it a store uses (`usage`)."""

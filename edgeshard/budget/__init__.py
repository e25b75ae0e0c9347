"""The disk budget: the policy (pure) and the measurement."""

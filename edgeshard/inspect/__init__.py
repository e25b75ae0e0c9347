"""Read-only views of a store (status, verify), and rescue (salvage)."""

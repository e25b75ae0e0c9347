"""Data that travels between stores: bundles, snapshots, inventories and receipts; and imports from other programs."""

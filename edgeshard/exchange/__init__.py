"""Data that travels between stores: bundles, snapshots, inventories, receipts."""

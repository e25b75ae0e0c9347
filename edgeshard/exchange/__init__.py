"""Data that travels between stores: bundles, snapshots, inventories and receipts."""

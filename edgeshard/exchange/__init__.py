"""Data that travels between stores: bundles, snapshots, inventories and receipts. And files of other programs."""

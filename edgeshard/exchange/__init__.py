"""Data that travels between stores: bundles, snapshots, inventories and receipts. And rows from lines of text."""

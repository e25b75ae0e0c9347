"""The writer: open a shard, write, run transactions, look things up."""

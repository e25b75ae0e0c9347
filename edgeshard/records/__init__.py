"""Python objects <-> rows: declaring tables, column types, codecs, keys, schema evolution, the hybrid logical clock."""

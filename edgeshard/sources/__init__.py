"""Read databases that we do not trust: attach them read-only, check them, and find the rows that we lack.

A source may be hostile: a shard that belongs to another user, or a database on a found USB stick. So:

- Only ordinary tables are read, by columns that we name ourselves, and never through an index of the source's making
  (``NOT INDEXED``).
- No expression of the source is evaluated, whether in a view, a trigger, a generated column, an index or a CHECK.
- Every value is checked before it is used: its type when it is fetched, its range when it is read.
- Everything that is read before rows are copied takes a bounded number of SQLite steps, and an amount of memory that is
  bounded by the size of the file.
"""

"""Python objects <-> rows: declaring tables, column types, codecs, keys, schema evolution, the hybrid logical clock.

declare
    read what a class declares, and check it
columns
    the result: columns and tables
names
    which names they may have
codecs
    convert values to and from storage, and compile that for the write path
keys
    keyed tables, and which version of a row they keep
types
    which of two column types holds the values of both
promote
    the same as SQL: convert a column's values to a wider type
ddl
    the SQL that makes a record table, and changes it
renames
    which name a column has after several renames
hlc
    the hybrid logical clock that timestamps changes
machine_clock
    the clocks of this machine
now_text
    the time as text, which each dict's row has
"""

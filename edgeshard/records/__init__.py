"""Python objects <-> rows: declaring tables, column types, codecs, keys, schema evolution, the hybrid logical clock.

declare
    read what a class declares, and check it
forms
    recognise an attrs class, a dataclass, a pydantic model, a NamedTuple or a TypedDict, and read its fields
field_types
    what the type of a field means: its column's type, and how values are stored and read back
columns
    the result: columns and tables
names
    which names they may have
limits
    how many tables, columns, indexes and renames there may be
codecs
    convert values to and from storage, and compile that for the write path
scalars
    what a field of a plain type accepts, and what is stored of it
foreign
    scalars of numpy and pandas as Python's own values
json_values
    what a dict or list may contain, and its JSON text
json_types
    typed JSON: fields such as ``list[int]`` or a nested record class
fallbacks
    what is stored instead of a value that cannot be stored exactly, if the user chose something
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
queries
    run a user's SQL that reads
rows
    what such a query returns
hlc
    the hybrid logical clock that timestamps changes
machine_clock
    the clocks of this machine
now_text
    the time as text, which each dict's row has
"""

"""The master database. Each _edgeshard_* table has one owner module here, with all the SQL on it.

A module that must join the table of another one uses a fragment of SQL from its owner, such as `streams.JOIN`.
"""

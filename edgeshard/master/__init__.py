"""The master database. Each edgeshard_* table has one owner module here, with all the SQL on it."""

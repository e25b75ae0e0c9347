"""Damage a master that no process has open, in ways that different checks find."""

from __future__ import annotations

import os
from pathlib import Path

import edgeshard
from tests.support.hostile_shards import edit
from tests.support.processes import sql

#: How a master can be damaged: a page overwritten, a row deleted behind edgeshard's back, an index that lacks a row.
DAMAGE = ("page", "row", "index")

_PAGE_BYTES = 4096


def damage(store: edgeshard.Store, kind: str) -> None:
    """Damage a store's master."""
    if kind == "page":
        edit(store.master_path, "pragma wal_checkpoint(truncate)")
        _overwrite_last_page(store.master_path)
    elif kind == "row":
        edit(store.master_path, "update _edgeshard_ranges set last = last + 1 where stream_no = 1")
    else:
        edit(
            store.master_path,
            "create index by_seq on agent_data(_seq)",
            "update sqlite_schema set sql = 'create index by_seq on agent_data(data)' where name = 'by_seq'",
        )


def _overwrite_last_page(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        at = (os.fstat(handle).st_size // _PAGE_BYTES - 1) * _PAGE_BYTES
        os.pwrite(handle, b"\xa5" * _PAGE_BYTES, at)
    finally:
        os.close(handle)


def overwrite_root(path: Path, name: str) -> None:
    """Overwrite the first page of a table of a master with what is no page."""
    ((page,),) = sql(
        path, "pragma wal_checkpoint(truncate)", f"select rootpage from sqlite_schema where name = '{name}'"
    )
    handle = os.open(path, os.O_RDWR)
    try:
        os.pwrite(handle, b"\xa5" * _PAGE_BYTES, (page - 1) * _PAGE_BYTES)
    finally:
        os.close(handle)

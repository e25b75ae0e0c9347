"""The guide on limits states the figures that the code has."""

from __future__ import annotations

import csv
import re
import sys

from edgeshard import format
from edgeshard.exchange import text_rows
from edgeshard.files import paths
from edgeshard.options import MAX_INTERVAL_S
from edgeshard.postgres.options import BATCH_MAX
from edgeshard.records import json_values
from edgeshard.retention import quantities
from edgeshard.shard import lookup
from tests.support.project import PROJECT


def test_the_table_of_limits_states_what_is_enforced() -> None:
    text = (PROJECT / "edgeshard" / "docs" / "limits.md").read_text()
    section = text.partition("\n## Sizes\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE))
    expected = {
        "rows of a stream": f"2^{format.SEQ_MAX.bit_length()}, then another stream begins",
        "an agent's name": f"1 to {paths.AGENT_NAME_MAX} characters, without U+0000",
        "columns of a table": f"{format.COLUMNS_MAX}",
        "columns of a key": f"{format.COLUMNS_MAX}",
        "indexes of a table": f"{format.INDEXES_MAX}, and that of its key",
        "older names of a table's columns (`renamed`)": f"{format.RENAMES_MAX}",
        "tables of a master; columns of all of them": f"{format.TABLES_MAX}; {format.COLUMNS_IN_ALL_MAX:,}",
        "a row, and its largest value": f"{format.ROW_BYTES_MAX // 1_000_000} MB",
        "an int in a field; in a dict or list": f"64 bits; {json_values.DIGITS_MAX:,} digits",
        "an int in a `float` field": f"those that a float holds exactly: all up to 2^{sys.float_info.mant_dig}",
        "levels of dicts and lists in a value": f"{json_values.DEPTH_MAX}",
        "a line of NDJSON or CSV; a field of CSV": f"{text_rows.LINE_BYTES_MAX // 1_000_000} MB; "
        f"{csv.field_size_limit():,} characters",
        "references of a shard": f"{lookup.REFERENCES_MAX}",
        "a size that you give (`max_bytes`)": f"{quantities.MIN_MAX_BYTES // 10**6} MB to "
        f"{quantities.MAX_MAX_BYTES // 10**12:,} TB",
        "a number of rows that you give (`keep_rows`, `limit`, `batch`)": f"{len(str(quantities.MAX_ROWS))} digits; "
        f"a push: {BATCH_MAX:,} rows per batch",
        "an age that you give (`older_than`)": f"{quantities.age_s('365250d') / (365.25 * 86_400):,.0f} years",
        "a time that you give (`lock_wait`, `wait`, `interval`)": f"{MAX_INTERVAL_S:,.0f} seconds; `lock_wait=-1` "
        "waits forever",
    }
    assert {"what": "limit", **expected} == rows

"""``edgeshard query``: run one SELECT on the master, and write its rows as a table, as JSON or as CSV."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import Any

from edgeshard import units
from edgeshard.cli import arguments, exits, output
from edgeshard.errors import QueryError, printable
from edgeshard.store import Statement, Store, number_or_text

SUMMARY = "Run one SQL statement on a store's master, which it only reads."

_EPILOG = """\
Without --json or --csv the rows are drawn as a table, as wide as the terminal, or one value per line if there are too
many columns; in a pipe, lines are as long as needed, without colours. A table needs all rows in memory, and cells are
cut after 4096 characters: for millions of rows use --csv or --json, which write row by row. Blobs are written in
hexadecimal. In JSON an infinite number is the text "Infinity"; in CSV (RFC 4180) NULL is an empty field.

A parameter is a number if it is written as one (7, -0.5; not 007 or 1e3), otherwise text.

examples:
  %(prog)s data "select agent_id, count(*) as rows from agent_data group by agent_id"
  %(prog)s data "select * from agent_data where agent_id = ? limit ?" -p agent-7 -p 10
  %(prog)s data "select * from agent_data where agent_id = :agent" -p agent=agent-7
  %(prog)s data --json --json-cols "select agent_id, data from agent_data" | jq '.[].data.action'
  %(prog)s data --fresh --csv "select * from agent_data" > rows.csv

exit codes:
  0 done               1 SQLite refused the SQL         2 wrong usage       65 the master is damaged
  74 input/output error     75 the master is locked     77 not permitted
  78 there is no such store, or no master in it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("sql", metavar="SQL", help="one statement, in quotes")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--json", action="store_true", help="print an array of objects")
    written.add_argument("--csv", action="store_true", help="print CSV, with the names of the columns first")
    parser.add_argument(
        "--json-cols", action="store_true", help="with --json: columns of JSON as JSON values, and not as text"
    )
    parser.add_argument("--fresh", action="store_true", help="merge first, so that all rows written so far are seen")
    parser.add_argument(
        "-p",
        "--param",
        dest="params",
        metavar="VALUE",
        action="append",
        default=[],
        help="the value of the next ?, or NAME=VALUE for :NAME; can be repeated",
    )
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Run the statement and write its rows."""
    if options.json_cols and not options.json:
        options.usage_error("argument --json-cols: requires --json")
    store = _store(options)
    params = _bindings(store, options.sql, options.params)
    if options.json:
        _write_json(store, store.query_rows(options.sql, params, json=options.json_cols))
    elif options.csv:
        _write_csv(store.query_rows(options.sql, params))
    else:
        print(_table(store, options.sql, params), end="")
    return exits.DONE


def _store(options: argparse.Namespace) -> Store:
    """Return the store, after a merge if one is wanted."""
    if options.fresh:
        store = arguments.store_of(options)
        if store.has_shards():
            store.merge_now()
            return store
    return arguments.store_with_master(options)


def _table(store: Store, sql: str, params: list[Any] | dict[str, Any]) -> str:
    out = sys.stdout
    return store.query_table(
        sql,
        params,
        colour=output.is_coloured(out),
        width=output.width(out),
        unicode=output.has_box_characters(out),
    )


# -- parameters -------------------------------------------------------------------------------------------------------


def _bindings(store: Store, sql: str, params: list[str]) -> list[Any] | dict[str, Any]:
    """Return the values of the statement's parameters.

    Raises:
        QueryError: a value is missing, or there is one too many, or the statement is not valid.
    """
    statement = store.describe_query(sql)
    if not statement.has_names:
        if len(params) != len(statement.parameters):
            cause = f"the statement has {units.count(len(statement.parameters), 'parameter')}, but got {len(params)}"
            raise QueryError("query", store.master_path, f"{cause}; add one -p VALUE for each")
        return [number_or_text(text) for text in params]
    given = {name: number_or_text(text) for name, _, text in (param.partition("=") for param in params)}
    if set(given) != set(_names(statement)):
        needed = ", ".join(f"-p {name}=VALUE" for name in _names(statement))
        cause = f"the statement needs {needed}; given were: {', '.join(given) or 'none'}"
        raise QueryError("query", store.master_path, cause)
    return given


def _names(statement: Statement) -> list[str]:
    return [name for name in statement.parameters if name is not None]


# -- rows -------------------------------------------------------------------------------------------------------------


def _write_json(store: Store, rows: Iterator[tuple[Any, ...]]) -> None:
    names = next(rows)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        cause = f"several columns are called {', '.join(doubled)}; JSON would keep only one; name them with AS"
        raise QueryError("query", store.master_path, cause)
    before = "["
    for row in rows:
        record = dict(zip(names, map(_json_value, row), strict=True))
        sys.stdout.write(before + output.to_json(record))
        before = ",\n"
    sys.stdout.write("[]\n" if before == "[" else "]\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"  # JSON has no such number
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _json_value(item) for name, item in value.items()}
    return value


def _write_csv(rows: Iterator[tuple[Any, ...]]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    is_shown = sys.stdout.isatty()  # a file or a program gets each value as it is
    for row in rows:
        if row:
            writer.writerow([_csv_value(value, is_shown=is_shown) for value in row])


def _csv_value(value: Any, *, is_shown: bool) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return printable(value) if is_shown and isinstance(value, str) else value
